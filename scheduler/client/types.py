"""What the service answers, as types: the same for the service that makes them and the client that reads them.

Seconds (`_s`), bytes and dollars (`_usd`) carry their unit in the name. Times are Unix seconds, days are UTC
(`2026-11-27`). Null is what is not known, or not there.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12


class ProgressView(TypedDict):
    """How far a run is: steps of training, or rows."""

    phase: str
    fraction: float
    step: int
    total_steps: int | None
    rows: int
    total_rows: int | None
    per_second: float | None
    loss: float | None
    epoch: int | None
    rows_by_device: dict[str, int]
    row_errors: int
    resumed: int
    note: str
    metrics: dict[str, Any]


class Workload(TypedDict):
    """One workload in a list."""

    id: str
    name: str
    kind: str
    pipeline_id: str | None
    owner: str
    queue: str
    priority: int
    objective: str
    state: str
    paused: bool
    pause_cause: str
    attempt: int
    needs: list[str]
    submitted_s: float
    started_s: float | None
    ended_s: float | None
    run_s: float
    attempt_s: float | None
    cost_usd: float | None
    deadline_s: float | None
    late_s: float | None
    budget_usd: float | None
    placement: str | None
    emulated: list[str]
    predicted_s: float | None
    predicted_usd: float | None
    predicted_source: str | None
    explanation: str | None
    progress: ProgressView
    metrics: dict[str, Any]
    output: str
    message: str
    failure: str
    cancel_requested: bool
    ended: bool


class ReasonView(TypedDict):
    """Why a configuration was not taken."""

    code: str
    message: str


class EstimateView(TypedDict):
    """What one configuration would take and cost."""

    configuration: dict[str, int]
    seconds: float | None
    low_s: float | None
    high_s: float | None
    startup_s: float
    memory_bytes: float | None
    price_usd_h: float | None
    money_usd: float | None
    compute_usd: float | None
    storage_usd: float | None
    communication_usd: float | None
    source: str
    bound: str
    market: str
    note: str
    breakdown: dict[str, float] | None
    energy: dict[str, float | None] | None


class OptionView(EstimateView):
    """One row of an explanation: `total_usd` is money and the value of time, congestion and waiting included."""

    total_usd: float | None
    congestion_usd: float
    wait_s: float | None
    reason: ReasonView | None


class WorkloadLong(Workload):
    """One workload with its spec, its result and what was weighed."""

    spec: dict[str, Any]
    result: dict[str, Any]
    options: list[OptionView]


class Submitted(TypedDict):
    """What a submission became: `id` is the pipeline's, or that of the one workload."""

    id: str
    workloads: list[Workload]


class WorkloadPage(TypedDict):
    """One page of a list; `next_cursor` is where the one before it in time begins."""

    workloads: list[Workload]
    next_cursor: str | None


class Shown(TypedDict):
    """A workload, or all of a pipeline."""

    id: str
    workloads: list[WorkloadLong]


class ExplanationView(TypedDict):
    """The whole table of what was weighed, with the choice."""

    chosen: dict[str, int] | None
    summary: str
    options: list[OptionView]


class Explained(ExplanationView):
    """Why one workload runs where it does, or why it waits."""

    id: str
    name: str
    kind: str
    state: str
    message: str
    ended: bool
    submitted_s: float
    deadline_s: float | None
    late_s: float | None
    budget_usd: float | None


class ExplainedAll(TypedDict):
    """The same, of a workload or of all of a pipeline."""

    id: str
    workloads: list[Explained]


class StepPlanView(ExplanationView):
    """One step as it would run on the idle cluster."""

    name: str
    kind: str
    needs: list[str]
    samples: float | None
    tokens_per_sample: float | None


class PlanView(TypedDict):
    """What would be chosen; `notes` say what the plan cannot tell."""

    name: str
    policy: str
    steps: list[StepPlanView]
    notes: list[str]


class EventView(TypedDict):
    """One line of the log; `sequence` only grows."""

    sequence: int
    at_s: float
    cycle: int | None
    kind: str
    workload_id: str | None
    cause: str
    data: dict[str, Any]


class EventPage(TypedDict):
    """Events, oldest first; `next_after` is null at the end of the log."""

    events: list[EventView]
    next_after: int | None


class Cancelled(TypedDict):
    """Ids that were still going and shall end."""

    cancelled: list[str]


class Paused(TypedDict):
    """Ids that shall hold nothing from now on."""

    paused: list[str]


class Resumed(TypedDict):
    """Ids that may go on."""

    resumed: list[str]


class Changed(TypedDict):
    """What was changed, by field, and how the workloads are now."""

    id: str
    changed: list[str]
    workloads: list[Workload]


class DeviceTypeView(TypedDict):
    """One device type of the cluster."""

    name: str
    kind: str
    emulated: bool
    emulated_speed: float | None
    total: int
    free: int
    price_usd_h: float | None
    price_source: str
    price_as_of: str
    market: str
    spot_price_usd_h: float | None
    interruptions_per_h: float | None
    power_watts: float | None
    memory_bytes: float | None
    peak_flops: dict[str, float]


class NodeDevicesView(TypedDict):
    """Devices of one type on one node."""

    type: str
    total: int
    free: int


class NodeView(TypedDict):
    """One machine of the cluster."""

    node_id: str
    name: str
    node_type: str
    is_head: bool
    market: str
    devices: list[NodeDevicesView]
    leaves_s: float | None
    """Unix seconds when it will be gone, where it was given notice: nothing begins there any more."""


class DevicesView(TypedDict):
    """What the cluster has, what it costs, and what one device is worth to those who wait for it."""

    device_types: list[DeviceTypeView]
    nodes: list[NodeView]
    energy: dict[str, float | None]
    tariff: dict[str, float | None]
    congestion_usd_h: dict[str, float]
    warnings: list[str]


class Holding(TypedDict):
    """A workload on a node, with what it holds there."""

    id: str
    name: str
    devices: dict[str, int]


class NodeWithWork(NodeView):
    """One machine with what runs on it; `price_usd_h` is that of the whole rented node, null of one that stays."""

    price_usd_h: float | None
    memory_bytes: float
    workloads: list[Holding]


class RentableView(TypedDict):
    """A kind of node that can be rented: so many are there, on their way, and at most."""

    name: str
    devices: dict[str, int]
    price_usd_h: float
    market: str
    present: int
    launching: int
    most: int
    unavailable_until_s: float | None
    """Unix seconds until which none is asked for, as a launch failed."""
    unavailable_why: str


class NodesView(TypedDict):
    """The machines, and those that could be rented. `rented_month_usd` is what rented nodes have cost this month (UTC),
    boot and idle time included; those on spot would have cost `spot_saved_month_usd` more on demand."""

    nodes: list[NodeWithWork]
    rentable: list[RentableView]
    rented_usd_h: float
    rent_cap_usd_h: float | None
    rented_month_usd: float
    spot_saved_month_usd: float
    rent_cap_usd_month: float | None


class QueueView(TypedDict):
    """A queue: its rules, what its workloads hold now, and what they have cost. Dollars are of what has a price.
    `month_usd` is spent of `limit_usd_month`, where there is one."""

    name: str
    rules: dict[str, Any]
    running: int
    waiting: int
    paused: int
    holds: dict[str, int]
    holds_usd_h: float
    today_usd: float
    month_usd: float
    limit_usd_month: float | None


class QueuesView(TypedDict):
    """All queues that have rules, work, or costs this month."""

    queues: list[QueueView]
    day: str
    month: str


class UsageRow(TypedDict, total=False):
    """Device seconds and dollars of one group: it has those of the first keys that were asked for."""

    owner: str
    queue: str
    workload: str
    day: str
    device_type: str
    device_s: float
    usd: float
    unpriced_s: float


class UsageTotal(TypedDict):
    """All groups together. `unpriced_s` are device seconds that no price is known for: `usd` is without them."""

    device_s: float
    usd: float
    unpriced_s: float


class UsageView(TypedDict):
    """What was held from one day to another, both included; what still runs is counted up to `until_s`."""

    by: list[str]
    since: str
    until: str
    until_s: float
    rows: list[UsageRow]
    total: UsageTotal


class Health(TypedDict):
    """The service answers."""

    status: str


class Ready(TypedDict):
    """Whether new work may be sent, each reason why not, and seconds since a cycle came to its end."""

    ready: bool
    reasons: list[str]
    last_cycle_age_s: float | None


class CalibrationView(TypedDict):
    """What was learnt and measured."""

    subjects: list[dict[str, Any]]
    overheads: list[dict[str, Any]]
    history: list[dict[str, Any]]
    device_types: list[dict[str, Any]]


class Forgotten(TypedDict):
    """How much was known before it was forgotten."""

    forgotten: dict[str, int]


class TokenView(TypedDict):
    """A token without its secret. Times are Unix seconds; the last use is known to the minute, since the service
    began."""

    id: str
    user: str
    role: str
    note: str
    created_s: float
    expires_s: float | None
    revoked_s: float | None
    last_used_s: float | None


class NewToken(TokenView):
    """A token with its secret."""

    token: str


class TokenList(TypedDict):
    """All tokens, oldest first, also those that open nothing any more."""

    tokens: list[TokenView]


class AdminToken(TypedDict):
    """The administrator's new token."""

    token: str


class ProblemItem(TypedDict):
    """One thing wrong: the field's path, what it is, and what to do about it."""

    message: str
    field: str
    hint: str
    file: str


class ProblemView(TypedDict, total=False):
    """Problem details (RFC 9457). `problems` lists what is wrong, field by field."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    problems: list[ProblemItem]
