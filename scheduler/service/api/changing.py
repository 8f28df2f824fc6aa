"""What becomes of a workload that was submitted: cancelled, paused, resumed, changed. Of a pipeline: all its steps."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, WithJsonSchema

from workloads.errors import Problem

from ...admission.changes import Change, change, check_names
from ...client import types
from ...engine.limits import BUDGET_SPENT
from ...engine.resuming import resumes
from ...states import ENDED, HOLDS_DEVICES
from ...store import Event, Record
from ..auth import User
from ..runtime import Runtime
from ..users import CurrentUser, must_own, needs
from . import showing
from .finding import Found, find
from .problems import ProblemError
from .reading import WorkloadId

ASKED = "the user asked for it"


def _json(kind: list[str], **more: Any) -> Any:
    return WithJsonSchema({"type": kind} | more)


class ChangeRequest(BaseModel):
    """Fields to change; each is checked as in a spec. Null takes a deadline or a budget away."""

    model_config = ConfigDict(extra="allow")
    priority: Annotated[Any, _json(["integer"], description="-1000..1000")] = None
    deadline: Annotated[Any, _json(["string", "number", "null"], description="This long from now on")] = None
    budget_usd: Annotated[Any, _json(["number", "null"], description="What it may cost in all")] = None
    objective: Annotated[Any, _json(["string"], enum=["cost", "balanced", "time"])] = None
    queue: Annotated[Any, _json(["string"])] = None
    resources: Annotated[
        Any,
        _json(["object"], properties={"count": {"type": ["string", "integer"]}}, description="`count`: 2, or 1..4"),
    ] = None

    def asked(self) -> dict[str, Any]:
        """What was given, unknown fields too."""
        return self.model_dump(exclude_unset=True)


def router(runtime: Runtime) -> APIRouter:
    """The routes over a runtime."""
    routes = APIRouter(prefix="/api/v1/workloads/{workload_id}", tags=["workloads"], dependencies=[needs("submitter")])
    _add_cancel(routes, runtime)
    _add_pausing(routes, runtime)
    _add_change(routes, runtime)
    return routes


def _add_cancel(routes: APIRouter, runtime: Runtime) -> None:
    @routes.post("/cancel", status_code=202)
    def cancel(workload_id: WorkloadId, user: CurrentUser) -> types.Cancelled:
        """End it, and with a pipeline all of its steps. The next cycle does it."""
        going = _going(_own(runtime, workload_id, user))
        for record in going:
            runtime.cancel(record, f"{user.name} asked for it")
        return {"cancelled": [record.id for record in going]}


def _add_pausing(routes: APIRouter, runtime: Runtime) -> None:
    @routes.post("/pause", status_code=202)
    def pause(
        workload_id: WorkloadId,
        user: CurrentUser,
        restart: Annotated[bool, Query(description="Also what would begin again from its start")] = False,
    ) -> types.Paused:
        """Take its devices away, after a checkpoint, until it is resumed. What runs and could not go on where it was is
        only paused with `restart`."""
        found = _own(runtime, workload_id, user)
        going = [record for record in _going(found) if not record.paused]
        if not going and all(record.state in ENDED for record in found.records):
            raise ProblemError(409, f"{found.id} has ended")
        lossy = [record for record in going if record.state in HOLDS_DEVICES and not resumes(record)]
        if lossy and not restart:
            raise _would_begin_again(lossy)
        for record in going:
            event = Event("pause-requested", ASKED, record.id, at_s=time.time(), data={"by": user.name})
            runtime.store.change(record.id, event, paused=True, pause_cause=f"paused by {user.name}")
        runtime.wake()
        return {"paused": [record.id for record in going]}

    @routes.post("/resume", status_code=202)
    def resume(workload_id: WorkloadId, user: CurrentUser) -> types.Resumed:
        """Let it go on: it waits in its queue again. What is paused since its budget is spent needs a larger one."""
        found = _own(runtime, workload_id, user)
        going = _going(found)
        if not going:
            raise ProblemError(409, f"{found.id} has ended")
        paused = [record for record in going if record.paused]
        spent = [record for record in paused if record.pause_cause == BUDGET_SPENT]
        if spent:
            raise _needs_a_larger_budget(spent)
        for record in paused:
            event = Event("resume-requested", ASKED, record.id, at_s=time.time(), data={"by": user.name})
            runtime.store.change(record.id, event, paused=False, pause_cause="")
        runtime.wake()
        return {"resumed": [record.id for record in paused]}


def _needs_a_larger_budget(records: list[Record]) -> ProblemError:
    hint = "give it a larger budget_usd: then it goes on"
    problems = [Problem(f"{record.id} is paused: {BUDGET_SPENT}", "budget_usd", hint) for record in records]
    return ProblemError(409, f"{problems[0].message}; {hint}", problems)


def _would_begin_again(records: list[Record]) -> ProblemError:
    hint = "wait until it has ended, or pause it with restart=true: its work is lost"
    problems = [
        Problem(f"{record.id} ({record.kind}) runs and would begin again from its start", "query.restart", hint)
        for record in records
    ]
    return ProblemError(409, f"{problems[0].message}; {hint}", problems)


def _add_change(routes: APIRouter, runtime: Runtime) -> None:
    one_at_a_time = threading.Lock()

    @routes.patch("")
    def change_workload(workload_id: WorkloadId, body: ChangeRequest, user: CurrentUser) -> types.Changed:
        """Set priority, deadline, budget, objective or the number of devices, while it waits or runs; the queue, while
        it holds no devices. Of a pipeline: priority, deadline, objective and queue of all steps that have not ended. A
        larger budget lets go on what is paused since its budget was spent."""
        asked = body.asked()
        with one_at_a_time:  # a change is made of the spec as it is stored
            found = _own(runtime, workload_id, user)
            check_names(asked, pipeline=found.is_pipeline)
            going = _going(found)
            if not going:
                raise ProblemError(409, f"{found.id} has ended")
            if "queue" in asked and (holding := [record for record in going if record.state in HOLDS_DEVICES]):
                raise _charged_where_it_began(holding)
            changes = zip(going, _changes(runtime, going, asked), strict=True)
            changed = [_store(runtime, record, each, user) for record, each in changes]
        runtime.wake()
        records = [record for record in changed if record is not None]
        return {"id": found.id, "changed": sorted(asked), "workloads": showing.short(runtime, records)}


def _charged_where_it_began(records: list[Record]) -> ProblemError:
    hint = "pause it first: what it has cost is then charged to the queue that it ran in"
    problems = [Problem(f"{record.id} holds devices of queue {record.queue}", "queue", hint) for record in records]
    return ProblemError(409, f"{problems[0].message}; {hint}", problems)


def _changes(runtime: Runtime, records: list[Record], asked: dict[str, Any]) -> list[Change]:
    """All of them are right, or none is made. Raises SpecError."""
    now_s = time.time()
    snapshot = runtime.engine.as_measured(runtime.observer.snapshot())
    known = runtime.engine.calibration
    return [
        change(each, asked, snapshot=snapshot, calibration=known, spent_usd=each.cost_usd(now_s), now_s=now_s)
        for each in records
    ]


def _store(runtime: Runtime, record: Record, each: Change, user: User) -> Record | None:
    told = {name: list(values) for name, values in each.told.items()}
    words = ", ".join(f"{name} {_said(before)} -> {_said(after)}" for name, (before, after) in each.told.items())
    event = Event(
        "changed", f"{user.name}: {words}", each.workload_id, at_s=time.time(), data={"by": user.name, "fields": told}
    )
    go_on = {"paused": False, "pause_cause": ""} if _is_freed(record, each) else {}
    return runtime.store.change(each.workload_id, event, **each.fields, **go_on)


def _is_freed(record: Record, each: Change) -> bool:
    """Whether it is paused since its budget is spent, and gets a larger one, or none."""
    if not record.paused or record.pause_cause != BUDGET_SPENT or "budget_usd" not in each.fields:
        return False
    budget_usd = each.fields["budget_usd"]
    return budget_usd is None or record.budget_usd is None or budget_usd > record.budget_usd


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _own(runtime: Runtime, asked: str, user: User) -> Found:
    """What the id means, if the user may change it. Raises ProblemError."""
    found = find(runtime.store, asked)
    must_own(user, found.records)
    return found


def _going(found: Found) -> list[Record]:
    return [record for record in found.records if record.state not in ENDED]
