"""The API on a real socket, for what a client that waits for whole answers cannot test: streams."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from fake_service import FakeRuntime
from scheduler.service.api.feed import EventFeed
from scheduler.service.app import create_app


@dataclass
class Served:
    """The service on loopback."""

    runtime: FakeRuntime
    feed: EventFeed
    server: uvicorn.Server
    url: str
    thread: threading.Thread

    @property
    def token(self) -> str:
        return self.runtime.token


@contextmanager
def serving(runtime: FakeRuntime, feed: EventFeed | None = None, port: int = 0) -> Iterator[Served]:
    """As long as the block lasts; streams are ended first, as the signal that ends a service does."""
    feed = feed or EventFeed(runtime.store, look_s=0.01, heartbeat_s=0.1)
    app: FastAPI = create_app(runtime, feed=feed)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=30))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        served = Served(runtime, feed, server, f"http://127.0.0.1:{listener.getsockname()[1]}", thread)
        try:
            until(lambda: server.started)
            yield served
        finally:
            feed.close()
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for it."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)
