"""The REST API, `/api/v1`: the routes of `api/` put together, and the guard before them. Every route but the probes
needs the token; errors are RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from dashboards.metrics import render_metrics

from . import auth
from .api import changing, cluster, openapi, reading, state, streams, submitting
from .api.feed import EventFeed, close_on_signals
from .api.problems import add_handlers, problem_response
from .runtime import Runtime

OPEN_ROUTES = ("/api/v1/health", "/api/v1/ready")
MAX_BODY_BYTES = 4 << 20
_WITH_BODY = ("POST", "PATCH", "PUT", "DELETE")


def create_app(runtime: Runtime, feed: EventFeed | None = None) -> FastAPI:
    """The API over a runtime that somebody else starts and stops. `feed` has the events of its streams; closing it
    (`app.state.feed.close()`) ends them, which SIGTERM and SIGINT do by themselves."""
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
    _add_guard(app, runtime)
    add_handlers(app)
    app.include_router(streams.router(runtime, feed))  # before the routes of one workload
    app.include_router(submitting.router(runtime))
    app.include_router(reading.router(runtime))
    app.include_router(changing.router(runtime))
    app.include_router(cluster.router(runtime))
    app.include_router(state.router(runtime, lambda: render_metrics(runtime.store, runtime.engine)))
    openapi.document(app)
    return app


def _add_guard(app: FastAPI, runtime: Runtime) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        if path not in OPEN_ROUTES and not auth.allowed(runtime.store, request.headers.get("authorization")):
            headers = {"WWW-Authenticate": "Bearer"}
            return problem_response(401, "a valid bearer token is needed", None, path, headers)
        length = request.headers.get("content-length", "0")
        chunked = "transfer-encoding" in request.headers  # a body of unknown length
        if request.method in _WITH_BODY and (chunked or not length.isdigit() or int(length) > MAX_BODY_BYTES):
            return problem_response(413, f"a request body has at most {MAX_BODY_BYTES:,} bytes", None, path)
        return await call_next(request)
