"""The REST API, `/api/v1`: the routes of `api/` put together, and the guard before them. Every route but the probes
needs the token; errors are RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from dashboards.metrics import render_metrics

from . import auth, documented, tokens_api
from .api import changing, cluster, openapi, reading, state, streams, submitting
from .api.feed import EventFeed, close_on_signals
from .api.problems import add_handlers
from .guard import Guard, Limits
from .runtime import Runtime


def create_app(
    runtime: Runtime,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    feed: EventFeed | None = None,
) -> FastAPI:
    """The API over a runtime that somebody else starts and stops. `limits` are the guard's. `feed` has the events of
    its streams; closing it (`app.state.feed.close()`) ends them, which SIGTERM and SIGINT do by themselves."""
    feed = feed or EventFeed(runtime.store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        close_on_signals(feed)
        yield
        feed.close()

    app = FastAPI(
        title="Raywise",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.feed = feed
    _add_guard(app, runtime, limits)
    add_handlers(app)
    app.include_router(streams.router(runtime, feed))  # before the routes of one workload
    app.include_router(submitting.router(runtime))
    app.include_router(reading.router(runtime))
    app.include_router(changing.router(runtime))
    app.include_router(cluster.router(runtime))
    app.include_router(state.router(runtime, lambda: render_metrics(runtime.store, runtime.engine)))
    openapi.document(app)
    documented.document(app)
    return app


def _add_guard(app: FastAPI, runtime: Runtime, limits: Limits) -> None:
    tokens = auth.Tokens(runtime.store)
    app.add_middleware(Guard, tokens=tokens, limits=limits)
    app.include_router(tokens_api.router(tokens, runtime.home))
