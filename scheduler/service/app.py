"""The REST API, `/api/v1`. Every route but health needs the token; errors are RFC 9457 problem details."""

from __future__ import annotations

import time
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, TypeAdapter
from starlette.exceptions import HTTPException as AnyHTTPException

from cluster.protocols import ClusterUnreachable
from dashboards.metrics import render_metrics
from workloads.errors import Problem, SpecError
from workloads.loading import Submission, load_text

from ..engine.progress import Progress
from ..store import Record, StoreError
from ..types import Situation
from . import auth, calibration_views, documented, tokens_api, views
from .guard import PROBLEM_TYPE, Guard, Limits
from .runtime import Runtime

_SITUATION = TypeAdapter(Situation)
_EXPLAINED = ("id", "name", "kind", "state", "message", "ended", "submitted_s", "deadline_s", "late_s", "budget_usd")
_SHOWN_IDS = 8
"""So many of the ids that a short start fits are named."""


class SubmitRequest(BaseModel):
    """A spec as text, the folder its relative paths are seen from, and `--set` overrides."""

    model_config = ConfigDict(extra="forbid")
    text: str
    base: str
    file: str = ""
    overrides: list[str] = []


def create_app(runtime: Runtime, limits: Limits = Limits()) -> FastAPI:  # noqa: B008  (frozen)
    """The API over a runtime that somebody else starts and stops."""
    app = FastAPI(title="Raywise", version="1", openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None)
    _add_guard(app, runtime, limits)
    _add_errors(app)
    _add_submission(app, runtime)
    _add_reading(app, runtime)
    _add_cluster(app, runtime)
    _add_calibration(app, runtime)
    return app


def problem_response(status: int, title: str, problems: list[dict[str, str]] | None = None) -> JSONResponse:
    """An RFC 9457 answer; `problems` lists what is wrong with a submission, field by field."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if problems:
        body |= {"detail": problems[0]["message"], "problems": problems}
    return JSONResponse(body, status_code=status, media_type=PROBLEM_TYPE)


def _add_guard(app: FastAPI, runtime: Runtime, limits: Limits) -> None:
    tokens = auth.Tokens(runtime.store)
    app.add_middleware(Guard, tokens=tokens, limits=limits)
    app.include_router(tokens_api.router(tokens, runtime.home))
    documented.document(app)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(SpecError)
    async def refused(_: Request, error: SpecError) -> JSONResponse:
        return problem_response(422, "the submission is refused", error.to_json())

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [Problem(item["msg"], ".".join(str(part) for part in item["loc"])) for item in error.errors()]
        return problem_response(422, "the request is malformed", SpecError(problems).to_json())

    @app.exception_handler(AnyHTTPException)  # also the ones of the router: no such path, no such method
    async def not_found(_: Request, error: AnyHTTPException) -> JSONResponse:
        return problem_response(error.status_code, str(error.detail))

    @app.exception_handler(ClusterUnreachable)
    async def unreachable(_: Request, error: ClusterUnreachable) -> JSONResponse:
        return problem_response(503, f"the Ray cluster cannot be reached: {error}")

    @app.exception_handler(StoreError)
    async def store_failed(_: Request, error: StoreError) -> JSONResponse:
        return problem_response(507, f"nothing was accepted: the store cannot be written: {error}")


def _submission(request: SubmitRequest) -> Submission:
    base = Path(request.base)
    if not base.is_absolute():
        raise SpecError(Problem("must be an absolute path", "base"))
    return load_text(request.text, base=base, file=request.file, overrides=request.overrides)


def _add_submission(app: FastAPI, runtime: Runtime) -> None:
    @app.post("/api/v1/workloads", status_code=201)
    def submit(request: SubmitRequest) -> dict[str, Any]:
        records = runtime.submit(_submission(request))
        return {
            "id": records[0].pipeline_id or records[0].id,
            "workloads": [_short(runtime, record) for record in records],
        }

    @app.post("/api/v1/plan")
    def plan(request: SubmitRequest) -> dict[str, Any]:
        submission = _submission(request)
        return views.plan(submission, runtime.policy.name, runtime.plan(submission))

    @app.post("/api/v1/workloads/{workload_id}/cancel", status_code=202)
    def cancel(workload_id: str) -> dict[str, Any]:
        asked = []
        for record in _find(runtime, workload_id):
            if not _short(runtime, record)["ended"]:
                runtime.cancel(record)
                asked.append(record.id)
        return {"cancelled": asked}


def _add_reading(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/api/v1/workloads")
    def list_workloads(state: str | None = None, limit: int = 100) -> dict[str, Any]:
        states = state.split(",") if state else None
        records = runtime.store.select(states=states, limit=max(1, min(limit, 1000)))
        return {"workloads": [_short(runtime, record) for record in records]}

    @app.get("/api/v1/workloads/{workload_id}")
    def show(workload_id: str) -> dict[str, Any]:
        records = _find(runtime, workload_id)
        return {"id": _whole_id(runtime, workload_id), "workloads": [_long(runtime, record) for record in records]}

    @app.get("/api/v1/workloads/{workload_id}/events")
    def events(workload_id: str, after: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> dict[str, Any]:
        found = [
            event
            for record in _find(runtime, workload_id)
            for event in runtime.store.events(workload_id=record.id, after=after)
        ]
        return {"events": [views.event(event) for event in sorted(found, key=lambda event: event.sequence)]}

    @app.get("/api/v1/workloads/{workload_id}/logs", response_class=PlainTextResponse)
    def logs(workload_id: str) -> PlainTextResponse:
        parts = []
        records = _find(runtime, workload_id)
        for record in records:
            if record.attempt:
                head = f"=== {record.id}\n" if len(records) > 1 else ""
                parts.append(head + runtime.logs(record))
        return PlainTextResponse("\n".join(parts))

    @app.get("/api/v1/workloads/{workload_id}/explain")
    def explain(workload_id: str) -> dict[str, Any]:
        records = _find(runtime, workload_id)
        return {"id": _whole_id(runtime, workload_id), "workloads": [_explained(runtime, record) for record in records]}


def _add_cluster(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/api/v1/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/v1/devices")
    def devices() -> dict[str, Any]:
        snapshot = runtime.observer.snapshot()
        view = views.devices(snapshot) | {"congestion_usd_h": runtime.engine.congestion_usd_h}
        return view | {"warnings": [*snapshot.warnings, *runtime.stale_prices(snapshot)]}

    @app.get("/api/v1/snapshot")
    def snapshot() -> Response:
        report = runtime.engine.last_report
        if report is None:
            raise HTTPException(404, "no cycle has been completed yet")
        return Response(_SITUATION.dump_json(report.situation), media_type="application/json")

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(render_metrics(runtime.store, runtime.engine), media_type="text/plain; version=0.0.4")


def _add_calibration(app: FastAPI, runtime: Runtime) -> None:
    @app.get("/api/v1/calibration")
    def calibration() -> dict[str, Any]:
        engine = runtime.engine
        return calibration_views.calibration(engine.calibration, engine.device_rates, runtime.observer.snapshot())

    @app.delete("/api/v1/calibration")
    def reset_calibration() -> dict[str, Any]:
        engine = runtime.engine
        forgotten = calibration_views.counts(engine.calibration, engine.device_rates)
        engine.reset_calibration()
        runtime.wake()
        return {"forgotten": forgotten}


def _find(runtime: Runtime, asked: str) -> list[Record]:
    """The workload, or those of the pipeline, with this id or start of an id. Raises HTTPException."""
    known = _whole_id(runtime, asked)
    record = runtime.store.get(known)
    return [record] if record is not None else runtime.store.select(pipeline_id=known)


def _whole_id(runtime: Runtime, asked: str) -> str:
    """The id that was meant: itself, or the only one that starts so. Raises HTTPException, with those that are near."""
    if runtime.store.get(asked) is not None or runtime.store.select(pipeline_id=asked, limit=1):
        return asked
    fitting = runtime.store.ids(asked)
    if fitting and all(known.startswith(f"{fitting[0]}-") for known in fitting[1:]):  # a pipeline and its steps
        return fitting[0]
    if fitting:
        raise HTTPException(404, f"{asked!r} is the start of several ids: {', '.join(fitting[-_SHOWN_IDS:])}")
    near = get_close_matches(asked, runtime.store.ids(), n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise HTTPException(404, f"there is no workload or pipeline {asked!r}{hint}")


def _short(runtime: Runtime, record: Record) -> dict[str, Any]:
    return views.workload(*_seen(runtime, record))


def _long(runtime: Runtime, record: Record) -> dict[str, Any]:
    return views.workload_long(*_seen(runtime, record))


def _explained(runtime: Runtime, record: Record) -> dict[str, Any]:
    """Why it runs where it does, with what it was told to keep to."""
    short = _short(runtime, record)
    said = {name: short[name] for name in _EXPLAINED}
    return said | views.explanation(_as_planned(runtime, record).explanation)


def _seen(runtime: Runtime, record: Record) -> tuple[Record, Progress, float, str, set[str]]:
    """What is known of a workload now: what the views are made from."""
    report = runtime.engine.last_report
    types = report.situation.snapshot.device_types if report is not None else {}
    emulated = {name for name, kind in types.items() if kind.emulated}
    progress = runtime.engine.progress_of(record)
    return _as_planned(runtime, record), progress, time.time(), _failure(runtime, record), emulated


def _failure(runtime: Runtime, record: Record) -> str:
    """Why the last attempt that was to be tried again failed: kept in the record until it ends well."""
    if not record.failures and not record.losses:
        return ""
    if record.state != "succeeded":
        return record.message
    retries = [event for event in runtime.store.events(workload_id=record.id) if event.kind == "retry"]
    return retries[-1].cause if retries else ""


def _as_planned(runtime: Runtime, record: Record) -> Record:
    """The record with what the last cycle said of it: the stored explanation is only written when the choice changes,
    its numbers grow old."""
    report = runtime.engine.last_report
    fresh = report.plan.explanations.get(record.id) if report is not None and record.state == "queued" else None
    return record if fresh is None else replace(record, explanation=fresh)
