"""What there is, who holds it, and what it has cost: devices, nodes, queues, usage, the situation of the last cycle."""

from __future__ import annotations

import datetime
import time
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from workloads.errors import Problem

from ...client import types
from ...states import HOLDS_DEVICES
from ...store import Record
from ...types import Situation
from .. import cluster_views
from ..runtime import Runtime
from ..spending import GROUPS, day_of, usage
from ..users import needs
from .finding import find
from .problems import ProblemError
from .reading import STATES, WORDS, listed

LIVE = tuple(state for state in STATES if state not in ("succeeded", "failed", "cancelled"))
SITUATION = TypeAdapter(Situation)
_MONTH_DAYS = 8
"""Letters of a day that name its month, and the dash: `2026-11-`."""


def router(runtime: Runtime) -> APIRouter:
    """The routes over a runtime."""
    routes = APIRouter(prefix="/api/v1", tags=["cluster"], dependencies=[needs("viewer")])
    _add_machines(routes, runtime)
    _add_money(routes, runtime)
    return routes


def _add_machines(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/devices")
    def devices() -> types.DevicesView:
        """The cluster's device types: how many, how many free, at what price, and what one is worth right now."""
        snapshot = runtime.observer.snapshot()
        return cluster_views.devices(snapshot, runtime.engine.congestion_usd_h, runtime.stale_prices(snapshot))

    @routes.get("/nodes")
    def nodes() -> types.NodesView:
        """The machines with what runs on each, and the kinds of nodes that can be rented."""
        return cluster_views.nodes(runtime.observer.snapshot(), holding(runtime), *runtime.engine.rented_month_usd())

    @routes.get("/snapshot", response_class=Response)
    def snapshot() -> Response:
        """The situation that the last cycle planned for, whole: the same policy plans the same from it."""
        report = runtime.engine.last_report
        if report is None:
            raise ProblemError(404, "no cycle has been completed yet")
        return Response(SITUATION.dump_json(report.situation), media_type="application/json")


def _add_money(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/queues")
    def queues() -> types.QueuesView:
        """Each queue's rules, what it holds, what waits in it, and what it has cost today and this month (UTC)."""
        report, now_s = runtime.engine.last_report, time.time()
        rules = {} if report is None else report.situation.queues
        live = runtime.store.select(states=LIVE)
        day = day_of(now_s)
        today_usd = _spent_by_queue(runtime, live, day, now_s)
        month_usd = _spent_by_queue(runtime, live, f"{day[:_MONTH_DAYS]}01", now_s)
        return cluster_views.queues(rules, live, today_usd, month_usd, day)

    @routes.get("/usage")
    def usage_of(
        by: Annotated[str, Query(description=f"Groups, separated by commas: {', '.join(GROUPS)}")] = "queue",
        since: Annotated[str | None, Query(description="First day (UTC); the first of this month")] = None,
        until: Annotated[str | None, Query(description="Last day, included; today")] = None,
        owner: Annotated[str | None, Query(description="Only this user's", pattern=WORDS)] = None,
        queue: Annotated[str | None, Query(description="Only this queue's", pattern=WORDS)] = None,
        workload: Annotated[str | None, Query(description="Only this workload's", pattern=WORDS)] = None,
        device_type: Annotated[str | None, Query(description="Only this device type's", pattern=WORDS)] = None,
    ) -> types.UsageView:
        """Device seconds and dollars: of ended attempts as they were charged, of running ones up to now."""
        now_s = time.time()
        groups = listed(by, tuple(GROUPS), "query.by") or []
        found = None if workload is None else find(runtime.store, workload)
        if found is not None and found.is_pipeline:
            problem = Problem("is a pipeline", "query.workload", "name one of its workloads")
            raise ProblemError(422, problem.message, [problem])
        return usage(
            runtime.store,
            holding(runtime),
            list(dict.fromkeys(groups)),
            since=_day(since, "query.since") or f"{day_of(now_s)[:_MONTH_DAYS]}01",
            until=_day(until, "query.until") or day_of(now_s),
            until_s=now_s,
            only={
                "owner": owner,
                "queue": queue,
                "workload": None if found is None else found.id,
                "device_type": device_type,
            },
        )


def holding(runtime: Runtime) -> list[Record]:
    """Workloads that hold devices."""
    return runtime.store.select(states=HOLDS_DEVICES)


def _spent_by_queue(runtime: Runtime, live: list[Record], since: str, now_s: float) -> dict[str, float]:
    found = usage(runtime.store, live, ["queue"], since=since, until="9999", until_s=now_s, only={})
    return {row["queue"]: row["usd"] for row in found["rows"]}


def _day(text: str | None, field: str) -> str | None:
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        problem = Problem(f"expected a day, got {text!r}", field, "such as 2026-11-01")
        raise ProblemError(422, problem.message, [problem]) from None
