"""The service itself: whether it answers, whether it works, what it measures, what it has learnt."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from ...client import types
from .. import calibration_views
from ..readiness import readiness
from ..runtime import Runtime
from ..users import needs

METRICS_TYPE = "text/plain; version=0.0.4"


def router(runtime: Runtime, render_metrics: Callable[[], str]) -> APIRouter:
    """The routes over a runtime; `render_metrics` writes Prometheus' text format."""
    routes = APIRouter()
    _add_probes(routes, runtime)
    _add_metrics(routes, render_metrics)
    _add_calibration(routes, runtime)
    return routes


def _add_probes(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/api/v1/health", tags=["service"])
    def health() -> types.Health:
        """The service answers. Needs no token."""
        return {"status": "ok"}

    @routes.get("/api/v1/ready", tags=["service"], responses={503: {"model": types.Ready}})
    def ready(response: Response) -> types.Ready:
        """Whether new work may be sent to it: 200, or 503 with each reason why not. Needs no token."""
        facts = runtime.readiness_facts()
        ok, reasons = readiness(facts)
        response.status_code = 200 if ok else 503
        return {"ready": ok, "reasons": reasons, "last_cycle_age_s": facts.age_s}


def _add_metrics(routes: APIRouter, render_metrics: Callable[[], str]) -> None:
    @routes.get("/metrics", tags=["service"], dependencies=[needs("viewer")], response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Prometheus' text format; docs/metrics.md has each metric."""
        return PlainTextResponse(render_metrics(), media_type=METRICS_TYPE)


def _add_calibration(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/api/v1/calibration", tags=["calibration"], dependencies=[needs("viewer")])
    def calibration() -> types.CalibrationView:
        """What was learnt and measured: corrections with intervals, start-up seconds, rates of device types."""
        engine = runtime.engine
        return calibration_views.calibration(engine.calibration, engine.device_rates, runtime.observer.snapshot())

    @routes.delete("/api/v1/calibration", tags=["calibration"], dependencies=[needs("admin")])
    def reset_calibration() -> types.Forgotten:
        """Forget all of it, and say how much it was."""
        engine = runtime.engine
        forgotten = calibration_views.counts(engine.calibration, engine.device_rates)
        engine.reset_calibration()
        runtime.wake()
        return {"forgotten": forgotten}
