"""Every error is a problem document (RFC 9457): its type, what happened this time, and what is wrong field by field."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cluster.protocols import ClusterUnreachable
from workloads.errors import Problem, RaywiseError, SpecError

from ...store import StoreError, StoreUnclearError

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A kind of problem: the end of its URI, and what it is called."""

    name: str
    title: str
    meaning: str

    @property
    def uri(self) -> str:
        """Its `type`, relative to the service."""
        return f"/problems/{self.name}"


KINDS = {
    400: Kind("bad-request", "Bad request", "The request cannot be read."),
    401: Kind("unauthenticated", "A token is needed", "There is no valid bearer token."),
    403: Kind("forbidden", "Not allowed", "The user's role does not allow it, or the workload is somebody else's."),
    404: Kind("not-found", "Not found", "There is no such path, workload or pipeline."),
    405: Kind("method-not-allowed", "Method not allowed", "The path is there, and does not take this method."),
    409: Kind("conflict", "Not as it stands now", "What is asked for does not go with the state of the workload."),
    408: Kind("timeout", "Too slow", "The body was not there in time."),
    413: Kind("too-large", "Too large", "The body is larger than is taken."),
    414: Kind("url-too-long", "URL too long", "The URL is longer than is taken."),
    415: Kind("unsupported-type", "Unsupported type", "The body is of another type than is taken."),
    421: Kind("misdirected", "Another service", "The `Host` header names another service."),
    422: Kind(
        "invalid", "What was sent is wrong", "`problems` names each field that is wrong, and what would be right."
    ),
    429: Kind("too-many-requests", "Too many requests", "Come back after the seconds in `Retry-After`."),
    431: Kind("headers-too-large", "Headers too large", "The headers are too many or too long."),
    500: Kind("internal", "The service failed", "A defect of the service; its log says more."),
    503: Kind(
        "unavailable",
        "Not available now",
        "The cluster cannot be reached, the store went away, or too many streams are open.",
    ),
    507: Kind("store", "Nothing was stored", "The store cannot be written: nothing was accepted."),
}
"""By status. Any other one is `about:blank`."""


class ProblemError(RaywiseError):
    """A request is answered with this status and sentence."""

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems = status, detail, tuple(problems)


def problem_response(
    status: int,
    detail: str,
    problems: list[dict[str, str]] | None = None,
    instance: str = "",
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer that says what is wrong."""
    kind = KINDS.get(status)
    body: dict[str, Any] = {
        "type": "about:blank" if kind is None else kind.uri,
        "title": "Error" if kind is None else kind.title,
        "status": status,
        "detail": detail,
    }
    body |= {"instance": instance} if instance else {}
    body |= {"problems": problems} if problems else {}
    return JSONResponse(body, status_code=status, media_type=PROBLEM_TYPE, headers=dict(headers or {}))


def _said(request: Request, status: int, detail: str, problems: Sequence[Problem] = ()) -> JSONResponse:
    as_json = SpecError(list(problems)).to_json()
    return problem_response(status, detail, as_json, request.url.path)


def add_handlers(app: FastAPI) -> None:
    """What is raised on purpose, and what is not, become answers."""

    @app.exception_handler(ProblemError)
    async def asked_wrongly(request: Request, error: ProblemError) -> JSONResponse:
        return _said(request, error.status, error.detail, error.problems)

    @app.exception_handler(SpecError)
    async def refused(request: Request, error: SpecError) -> JSONResponse:
        return _said(request, 422, error.problems[0].message, error.problems)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [_of_request(item) for item in error.errors()]
        return _said(request, 422, f"the request is malformed: {problems[0]}", problems)

    @app.exception_handler(HTTPException)  # those of the router: no such path, no such method
    async def of_the_router(request: Request, error: HTTPException) -> JSONResponse:
        detail = _ROUTER.get(error.status_code, "{detail}").format(
            method=request.method, path=request.url.path, detail=error.detail
        )
        return problem_response(error.status_code, detail, None, request.url.path, error.headers)

    @app.exception_handler(ClusterUnreachable)
    async def unreachable(request: Request, error: ClusterUnreachable) -> JSONResponse:
        return _said(request, 503, f"the Ray cluster cannot be reached: {error}")

    @app.exception_handler(StoreUnclearError)
    async def store_unclear(request: Request, error: StoreUnclearError) -> JSONResponse:
        return _said(request, 503, f"the store went away meanwhile: {error}")

    @app.exception_handler(StoreError)
    async def store_failed(request: Request, error: StoreError) -> JSONResponse:
        return _said(request, 507, f"nothing was accepted: the store cannot be written: {error}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _said(request, 500, "the service failed at this request; its log says more")


_ROUTER = {404: "there is no {path}", 405: "{path} does not take {method}"}


def _of_request(item: Any) -> Problem:
    field = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    return Problem(message[:1].lower() + message[1:], field)
