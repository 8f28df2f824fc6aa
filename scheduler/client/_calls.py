"""Every verb once: the request it is, and what its answer becomes. Both clients are made of these; nothing here speaks
to anybody."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

import httpx
from typing_extensions import TypedDict, Unpack

from . import types
from ._errors import Refused

T = TypeVar("T")
Spec = str | Path | Mapping[str, Any]
"""A YAML file's path, or a spec as a mapping."""
API = "/api/v1"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. What is `repeatable` may arrive twice and does the same as once."""

    method: str
    path: str
    answer: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    def arguments(self) -> dict[str, Any]:
        """For httpx."""
        found: dict[str, Any] = {"params": dict(self.params), "headers": dict(self.headers)}
        return found if self.json is None else found | {"json": self.json}


class OtherFilters(TypedDict, total=False):
    """Which workloads, whatever their state: several kinds are separated by commas; `since` is a date or Unix
    seconds."""

    kind: str | None
    queue: str | None
    owner: str | None
    name: str | None
    pipeline: str | None
    since: str | float | None


class Filters(OtherFilters, total=False):
    """Which workloads: several states are separated by commas."""

    state: str | None


def submit(spec: Spec, overrides: Iterable[str] = (), *, idempotency_key: str | None = None) -> Call[types.Submitted]:
    """Submit a YAML file (or a spec as a mapping). With the same key the same submission is accepted once; one is made
    up where none is given, so that a broken connection submits nothing twice. Raises Refused."""
    headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)}
    return Call("POST", f"{API}/workloads", _as(types.Submitted), json=body_of(spec, overrides), headers=headers)


def plan(spec: Spec, overrides: Iterable[str] = ()) -> Call[types.PlanView]:
    """What would be chosen on the idle cluster. Raises Refused."""
    return Call("POST", f"{API}/plan", _as(types.PlanView), json=body_of(spec, overrides))


def list_(state: str | None = None, limit: int = 100, **filters: Unpack[OtherFilters]) -> Call[list[types.Workload]]:
    """Workloads, oldest first, at most the newest `limit` (up to 1000)."""
    params = _params({"state": state, **filters, "limit": limit, "order": "oldest"})
    return Call(
        "GET", f"{API}/workloads", lambda found: cast("list[types.Workload]", found.json()["workloads"]), params
    )


def page(cursor: str | None = None, limit: int = 100, **filters: Unpack[Filters]) -> Call[types.WorkloadPage]:
    """One page of workloads, newest first; `next_cursor` asks for the one before it in time."""
    return Call(
        "GET", f"{API}/workloads", _as(types.WorkloadPage), _params({**filters, "limit": limit, "cursor": cursor})
    )


def show(workload_id: str) -> Call[types.Shown]:
    """A workload, or all workloads of a pipeline."""
    return Call("GET", _of(workload_id), _as(types.Shown))


def event_page(
    workload_id: str | None = None, after: int = 0, kinds: Iterable[str] | None = None, limit: int = 1000
) -> Call[types.EventPage]:
    """Events after a number, oldest first, at most so many: of a workload, of a pipeline, or all."""
    path = f"{API}/events" if workload_id is None else f"{_of(workload_id)}/events"
    kind = None if kinds is None else ",".join(kinds)
    return Call("GET", path, _as(types.EventPage), _params({"after": after, "limit": limit, "kind": kind}))


def event_stream(
    workload_id: str | None = None, after: int | None = None, kinds: Iterable[str] | None = None
) -> Call[None]:
    """Events as they happen."""
    kind = None if kinds is None else ",".join(kinds)
    params = _params({"workload": workload_id, "after": after, "kind": kind})
    return Call("GET", f"{API}/events/stream", lambda _: None, params)


def log_text(workload_id: str, offset: int = 0) -> Call[str]:
    """What it printed so far, from a byte on."""
    return Call("GET", f"{_of(workload_id)}/logs", lambda found: found.text, _params({"offset": offset or None}))


def log_stream(workload_id: str, offset: int = 0) -> Call[None]:
    """What it prints, until it has ended."""
    params = _params({"offset": offset or None, "follow": "true"})
    return Call("GET", f"{_of(workload_id)}/logs", lambda _: None, params)


def cancel(workload_id: str) -> Call[list[str]]:
    """End it; returns the ids that were still going."""
    return Call("POST", f"{_of(workload_id)}/cancel", lambda found: cast("list[str]", found.json()["cancelled"]))


def pause(workload_id: str, *, restart: bool = False) -> Call[list[str]]:
    """Take its devices away until it is resumed; returns the ids that were not paused yet. What would begin again from
    its start is only paused with `restart`."""
    params = _params({"restart": "true" if restart else None})
    return Call("POST", f"{_of(workload_id)}/pause", lambda found: cast("list[str]", found.json()["paused"]), params)


def resume(workload_id: str) -> Call[list[str]]:
    """Let it go on; returns the ids that were paused."""
    return Call("POST", f"{_of(workload_id)}/resume", lambda found: cast("list[str]", found.json()["resumed"]))


def change(workload_id: str, **fields: Any) -> Call[types.Changed]:
    """Set `priority`, `deadline` (from now on), `budget_usd`, `objective`, `queue` or `count`, while it waits or runs.
    None takes a deadline or a budget away. Raises Refused."""
    body = {name: value for name, value in fields.items() if name != "count"}
    body |= {"resources": {"count": fields["count"]}} if "count" in fields else {}
    return Call("PATCH", _of(workload_id), _as(types.Changed), json=body)


def explain(workload_id: str) -> Call[types.ExplainedAll]:
    """Why it runs where it does, or why it waits."""
    return Call("GET", f"{_of(workload_id)}/explain", _as(types.ExplainedAll))


def devices() -> Call[types.DevicesView]:
    """Device types, nodes and congestion prices."""
    return Call("GET", f"{API}/devices", _as(types.DevicesView))


def nodes() -> Call[types.NodesView]:
    """The machines with what runs on each, and those that could be rented."""
    return Call("GET", f"{API}/nodes", _as(types.NodesView))


def queues() -> Call[types.QueuesView]:
    """Each queue's rules, what it holds, what waits in it, and what it has cost."""
    return Call("GET", f"{API}/queues", _as(types.QueuesView))


def usage(
    by: str | Iterable[str] = "queue",
    *,
    since: str | None = None,
    until: str | None = None,
    owner: str | None = None,
    queue: str | None = None,
    workload: str | None = None,
    device_type: str | None = None,
) -> Call[types.UsageView]:
    """Device seconds and dollars by `owner`, `queue`, `workload`, `day` and `device_type`, from one day (UTC) to
    another, both included; this month where nothing is said."""
    groups = by if isinstance(by, str) else ",".join(by)
    only = {"owner": owner, "queue": queue, "workload": workload, "device_type": device_type}
    return Call(
        "GET", f"{API}/usage", _as(types.UsageView), _params({"by": groups, "since": since, "until": until, **only})
    )


def snapshot() -> Call[dict[str, Any]]:
    """The situation that the last cycle planned for."""
    return Call("GET", f"{API}/snapshot", lambda found: cast("dict[str, Any]", found.json()))


def metrics() -> Call[str]:
    """Prometheus' text format."""
    return Call("GET", "/metrics", lambda found: found.text)


def calibration() -> Call[types.CalibrationView]:
    """What was learnt and measured: corrections with intervals, start-up seconds, rates of device types."""
    return Call("GET", f"{API}/calibration", _as(types.CalibrationView))


def reset_calibration() -> Call[types.Forgotten]:
    """Forget all of it; returns how much there was."""
    return Call("DELETE", f"{API}/calibration", _as(types.Forgotten), repeatable=False)


def tokens() -> Call[list[types.TokenView]]:
    """All tokens, oldest first, without their secrets. For administrators."""
    return Call("GET", f"{API}/tokens", lambda found: cast("list[types.TokenView]", found.json()["tokens"]))


def create_token(user: str, role: str, expires: str | None = None, note: str = "") -> Call[types.NewToken]:
    """A new token (`token`: its text, told once) for a user: `admin`, `submitter` or `viewer`. `expires` is a duration,
    such as `30d`. For administrators. Raises Refused."""
    body = {"user": user, "role": role, "expires": expires, "note": note}
    return Call("POST", f"{API}/tokens", _as(types.NewToken), json=body, repeatable=False)


def revoke_token(token_id: str) -> Call[types.TokenView]:
    """Close a token for good. For administrators."""
    return Call("DELETE", f"{API}/tokens/{quote(token_id, safe='', errors='replace')}", _as(types.TokenView))


def rotate_admin_token() -> Call[str]:
    """The administrator's new token, which is also in the service's home folder; the one before opens nothing any
    more."""
    return Call("POST", f"{API}/tokens/admin/rotate", lambda found: str(found.json()["token"]), repeatable=False)


def health() -> Call[types.Health]:
    """Answers where the service does."""
    return Call("GET", f"{API}/health", _as(types.Health))


def ready() -> Call[types.Ready]:
    """Whether new work may be sent to it, and each reason why not. Raises ClientError with status 503 where not."""
    return Call("GET", f"{API}/ready", _as(types.Ready))


def _as(kind: type[T]) -> Callable[[httpx.Response], T]:
    del kind
    return lambda found: cast(T, found.json())


def _of(workload_id: str) -> str:
    return f"{API}/workloads/{quote(workload_id, safe='', errors='replace')}"


def _params(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def body_of(spec: Spec, overrides: Iterable[str]) -> dict[str, Any]:
    """The request for a spec: a file's text with its folder, or a mapping as JSON. Raises Refused."""
    changes = [seen_from_here(override) for override in overrides]
    if isinstance(spec, Mapping):
        plain = json.loads(json.dumps(dict(spec)))
        return {"spec": plain, "base": str(Path.cwd()), "file": "", "overrides": changes}
    path = Path(spec)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message, hint = f"not UTF-8 text (byte {error.start})", "not YAML?"
        raise Refused([{"message": message, "file": str(path), "field": "", "hint": hint}]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise Refused([{"message": message, "file": str(path), "field": "", "hint": ""}]) from None
    return {"text": text, "base": str(path.resolve().parent), "file": str(path), "overrides": changes}


def seen_from_here(override: str) -> str:
    """`key=path` with the path made absolute, seen from the current folder, where it is written as one (with a `/`, or
    a `.` or `~` first) and exists. The same rule as `workloads.loading.seen_from_here`."""
    key, _, value = override.partition("=")
    if "://" in value or not ("/" in value or value.startswith((".", "~"))):
        return override
    try:
        path = Path(value).expanduser()
        return f"{key}={path.resolve()}" if path.exists() else override
    except (OSError, ValueError, RuntimeError):  # too long for a path, a NUL byte, an unknown ~user
        return override
