"""Lists, one workload, its events, and why it runs where it does."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Path, Query

from workloads.errors import Problem
from workloads.refusals import nearest
from workloads.spec import Kind

from ...client import types
from ...states import State
from ...store import Event, Filter
from .. import views
from ..runtime import Runtime
from ..users import needs
from . import showing
from .finding import find
from .problems import ProblemError

STATES = tuple(dict.fromkeys((*get_args(State), "paused")))
KINDS: tuple[str, ...] = get_args(Kind)
WORDS = r"^[^\x00]{0,200}$"
"""What is compared with a name: no database takes a NUL."""
MOST = 1000
"""So many workloads or events are on a page."""
WorkloadId = Annotated[
    str, Path(description="The id of a workload or a pipeline, or as much of its start as is unique")
]
Limit = Annotated[int, Query(ge=1, le=MOST, description="At most so many")]
After = Annotated[int, Query(ge=0, lt=2**63, description="Only those after this sequence number")]
Kinds = Annotated[str | None, Query(description="Only these kinds, separated by commas", pattern=WORDS)]


def router(runtime: Runtime) -> APIRouter:
    """The routes over a runtime."""
    routes = APIRouter(prefix="/api/v1", tags=["workloads"], dependencies=[needs("viewer")])
    _add_lists(routes, runtime)
    _add_one(routes, runtime)
    return routes


def _add_lists(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/workloads")
    def list_workloads(
        state: Annotated[str | None, Query(description="Only these states, separated by commas")] = None,
        kind: Kinds = None,
        queue: Annotated[str | None, Query(description="Only this queue", pattern=WORDS)] = None,
        owner: Annotated[str | None, Query(description="Only what this user submitted", pattern=WORDS)] = None,
        name: Annotated[str | None, Query(description="Only names that contain this", pattern=WORDS)] = None,
        pipeline: Annotated[str | None, Query(description="Only the steps of this pipeline", pattern=WORDS)] = None,
        since: Annotated[str | None, Query(description="Submitted since: a date, or Unix seconds")] = None,
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
        order: Annotated[Literal["newest", "oldest"], Query(description="Which comes first on the page")] = "newest",
    ) -> types.WorkloadPage:
        """The newest workloads, page by page into the past. `order` turns round what is on a page, not the pages."""
        wanted = Filter(
            states=listed(state, STATES, "query.state"),
            kinds=listed(kind, KINDS, "query.kind"),
            owner=owner,
            queue=queue,
            pipeline_id=pipeline,
            name_contains=name,
            since_s=None if since is None else moment_s(since, "query.since"),
        )
        page = runtime.store.page(wanted, before=_before(cursor), limit=limit)
        shown = showing.short(runtime, page.records)
        return {
            "workloads": shown if order == "newest" else shown[::-1],
            "next_cursor": None if page.next_before is None else str(page.next_before),
        }

    @routes.get("/events", tags=["events"])
    def all_events(after: After = 0, limit: Limit = MOST, kind: Kinds = None) -> types.EventPage:
        """The event log, oldest first."""
        kinds = None if kind is None else kind.split(",")
        return _page(runtime.store.events(after=after, limit=limit, kinds=kinds), limit)


def _add_one(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/workloads/{workload_id}")
    def show(workload_id: WorkloadId) -> types.Shown:
        """A workload, or all of a pipeline, with its spec, its result and what was weighed."""
        found = find(runtime.store, workload_id)
        return {"id": found.id, "workloads": showing.long(runtime, found.records)}

    @routes.get("/workloads/{workload_id}/explain")
    def explain(workload_id: WorkloadId) -> types.ExplainedAll:
        """Why it runs where it does, or why it waits: every configuration with its money or a reason."""
        found = find(runtime.store, workload_id)
        return {"id": found.id, "workloads": showing.explained(runtime, found.records)}

    @routes.get("/workloads/{workload_id}/events", tags=["events"])
    def events(workload_id: WorkloadId, after: After = 0, limit: Limit = MOST, kind: Kinds = None) -> types.EventPage:
        """What happened to it, or to all of a pipeline, oldest first."""
        ids = [record.id for record in find(runtime.store, workload_id).records]
        kinds = None if kind is None else kind.split(",")
        return _page(runtime.store.events(workload_ids=ids, after=after, limit=limit, kinds=kinds), limit)


def _page(events: list[Event], limit: int) -> types.EventPage:
    more = len(events) == limit
    return {"events": [views.event(each) for each in events], "next_after": events[-1].sequence if more else None}


def listed(text: str | None, known: tuple[str, ...], field: str) -> list[str] | None:
    """Words separated by commas, all of them known; None where nothing is asked. Raises ProblemError."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [Problem(f"there is no {word!r}", field, nearest(word, known)) for word in words if word not in known]
    if wrong:
        raise ProblemError(422, wrong[0].message, wrong)
    return words


def moment_s(text: str, field: str) -> float:
    """Unix seconds of a date, of a date with a time (UTC unless it says otherwise), or of such a number. Raises
    ProblemError."""
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        problem = Problem(
            f"expected a date, got {text!r}", field, "such as 2026-11-01, 2026-11-01T08:30 or Unix seconds"
        )
        raise ProblemError(422, problem.message, [problem]) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        problem = Problem("is no cursor", "query.cursor", "take next_cursor of the page before as it is")
        raise ProblemError(422, problem.message, [problem])
    return int(cursor)
