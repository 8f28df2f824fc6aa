"""The engine. `run_cycle()` is the whole line of the design, once: observe, estimate, plan, validate, reconcile,
execute. The service calls it about once a second; the simulator calls the same function on a virtual clock.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cluster.protocols import ClusterUnreachable, Executor, NothingToRent, Observer, Provider
from cluster.types import Node, RunObservation, Snapshot

from ..estimate.calibration import Calibration
from ..estimate.candidates import facts_of
from ..estimate.device_rates import DeviceRates, LearntAgainst, in_terms_of, with_measured_rates
from ..log_context import about, enter_cycle
from ..policy import Policy
from ..states import ENDED, HOLDS_DEVICES
from ..store import EngineStore, Event, Record
from ..types import Explanation, Plan, QueueRules, Situation
from . import moves
from .apart import Apart
from .charges import charges_of, month_of
from .estimates import EstimateCache
from .launch import run_request
from .learn import learn, learn_first_items, learn_rates
from .limits import BUDGET_SPENT, Closed, MonthlySpending, closed_queues, grace_s, over_budget, same_month
from .looks import Looks
from .needs import Needs
from .policy_memory import PolicyMemory
from .profiler import Profiler, Upstream
from .progress import Progress, fold
from .reconcile import (
    Action,
    Drop,
    Hold,
    Start,
    Stop,
    Unhold,
    reconcile,
    reconcile_nodes,
    validate,
    within_month,
)
from .rentals import BEFORE_GONE_S, Rentals, leaving, why_leaving
from .report import CycleReport
from .resuming import resumes
from .saying import Said
from .viewing import view_of
from .without_node import WithoutNode

log = logging.getLogger(__name__)

MAX_RESUBMISSIONS = 5
ENDED_KEPT = 1000
"""Runs that ended whose progress is still shown in full; of those before, what the record has."""

WRITTEN_AT_ONCE = 100
"""So many changes are one transaction where there are many: a user's request comes in between."""
_LIVE = ("pending", "queued", "paused", *sorted(HOLDS_DEVICES))


class Engine:
    """Owns the decisions about all workloads of one store on one cluster."""

    def __init__(
        self,
        store: EngineStore,
        observer: Observer,
        executor: Executor,
        policy: Policy,
        profiler: Profiler,
        clock: Callable[[], float],
        seed: int = 0,
        on_end: Callable[[Record], None] = lambda _: None,
        provider: Provider | None = None,
        queues: Mapping[str, QueueRules] | None = None,
    ) -> None:
        """`on_end` is called with the record of each attempt that ended, before its state changes: logs are kept
        there. Without a `provider` there is nothing to rent, without `queues` none has rules."""
        self._store, self._observer, self._executor = store, observer, executor
        self._policy, self._profiler, self._clock, self._seed = policy, profiler, clock, seed
        self._looks = Looks(store)
        self._rentals = Rentals(store, provider or NothingToRent(), self._looks)
        self._leaving: dict[str, tuple[Node, float]] = {}
        self._queues = dict(queues or {})
        self._calibration: Calibration = store.load_calibration()
        self._rates: Mapping[str, DeviceRates] = store.load_device_rates()
        self._against: LearntAgainst = store.load_learnt_against()
        self._forget = False
        self._progress: dict[str, Progress] = {}
        self._ended: deque[str] = deque()
        self._resubmitted: Counter[str] = Counter()
        self._without_node = WithoutNode()
        self._on_end = on_end
        self._congestion_usd_h: dict[str, float] = {}
        self._memory = PolicyMemory(store, policy.name)
        self._estimates = EstimateCache()
        self._said = Said(clock())
        self._spending, self._apart = MonthlySpending(), Apart()
        self._needs = Needs(store)
        self._began_s, self._cycle_s = clock(), 1.0
        self.cycle = store.last_cycle()
        self.last_report: CycleReport | None = None

    def run_cycle(self) -> CycleReport | None:
        """One cycle. Returns None, having decided nothing, while the cluster cannot be reached."""
        self.cycle += 1
        self._began_s, self._cycle_s = self._clock(), self._clock() - self._began_s
        enter_cycle(self.cycle)
        self._forget_again()
        try:
            # 1. Observe: the cluster, the runs on it, and what has become ready.
            snapshot = self._rentals.observed(self._observer.snapshot(), self.cycle)
            self._follow_rates(snapshot)
            self._observe_runs(snapshot)
            self._promote()
            closed = self._keep_limits()
            # 2. Estimate every configuration of every workload that waits or runs.
            situation = self._estimate(snapshot.staying(), closed)
            # 3. Plan.
            situation, plan = self._plan(situation)
            self._explain(plan)
            # 4. Validate against a fresh snapshot.
            records = self._store.select(states=_LIVE)
            fresh = self._rentals.limited(self._observer.snapshot()).staying()
            valid, refusals = validate(plan.placements, records, fresh)
            valid, beyond = within_month(valid, records, plan, closed)
            # 5. Reconcile.
            must_go = [name for name, (node, _) in self._leaving.items() if node.node_id in self._rentals.must_go]
            actions = reconcile(plan, valid, records, closed, why_leaving(self._leaving, self._clock()), must_go)
            node_actions = reconcile_nodes(plan, valid, records, fresh)
            # 6. Execute.
            self._execute(actions, plan, snapshot)
            for change in node_actions:
                self._rentals.change(change, snapshot, self.cycle)
        except ClusterUnreachable as error:
            log.warning("cycle %d: the cluster cannot be reached: %s", self.cycle, error)
            return None
        self._congestion_usd_h = dict(plan.congestion_usd_h)
        refusals += beyond
        self.last_report = CycleReport(self.cycle, situation, plan, actions, refusals, node_actions, closed)
        self._memory.keep(plan.memory)
        return self.last_report

    @property
    def calibration(self) -> Calibration:
        """Everything learnt so far."""
        return self._calibration

    @property
    def device_rates(self) -> Mapping[str, DeviceRates]:
        """What benchmarks measured of device types, by the name calibration knows them by."""
        return self._rates

    def as_measured(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what was measured of its device types: what estimates are made on."""
        return with_measured_rates(snapshot, self._rates)

    def reset_calibration(self) -> None:
        """Forget everything that was learnt and measured. Safe to call beside a cycle: the one that runs now may still
        learn, and the next one forgets that as well."""
        self._store.save_calibration(Calibration(), {}, {})
        self._store.append(self._event("calibration-reset", "the user asked for it"))
        self._calibration, self._rates, self._against, self._forget = Calibration(), {}, {}, True

    def _forget_again(self) -> None:
        if self._forget:
            self._calibration, self._rates, self._against, self._forget = Calibration(), {}, {}, False
            self._keep_learnt()

    def _keep_learnt(self) -> None:
        self._store.save_calibration(self._calibration, self._rates, self._against)

    def rented_month_usd(self) -> tuple[float, float]:
        """Dollars that rented nodes have cost this month (UTC), and that those on spot would have cost more on
        demand."""
        return self._rentals.month_usd(self._clock()), self._rentals.saved_usd(self._clock())

    @property
    def congestion_usd_h(self) -> dict[str, float]:
        """Congestion prices of the last plan, per device type."""
        return dict(self._congestion_usd_h)

    def progress_of(self, record: Record) -> Progress:
        """How far the present or last attempt of a workload is."""
        known = self._progress.get(record.run_id)
        if known is not None or record.state != "succeeded":
            return known or Progress()
        kept = record.result
        return Progress(
            phase="finishing",
            rows_by_device=kept.get("by_device") or {},
            row_errors=kept.get("row_errors", 0),
            resumed=kept.get("resumed", 0),
            note=kept.get("note", ""),
            done=kept,
        )

    def _has_ended(self, run_id: str) -> None:
        """Of runs that ended only so many are remembered."""
        self._looks.forget(run_id)
        self._resubmitted.pop(run_id, None)
        self._without_node.forget(run_id)
        self._ended.append(run_id)
        while len(self._ended) > ENDED_KEPT:
            self._progress.pop(self._ended.popleft(), None)

    # 1. Observe

    def _follow_rates(self, snapshot: Snapshot) -> None:
        """Rates that are others than they were, here or in the service before this one, leave measured speeds what
        they are."""
        against = in_terms_of(self._calibration, self._against, self.as_measured(snapshot))
        if against == self._against:
            return
        changed = [name for name, rates in self._against.items() if against[name] != rates]
        self._against = against
        if changed:
            log.info("%s: the rates are others now; what was learnt is put in terms of them", ", ".join(changed))
        if self._calibration.points:
            self._keep_learnt()

    def _observe_runs(self, snapshot: Snapshot) -> None:
        holding = [r for r in self._store.select(states=HOLDS_DEVICES) if r.placement is not None]
        self._leaving = leaving(holding, snapshot)
        observed = self._executor.observe([record.run_id for record in holding])
        here = frozenset(node.node_id for node in snapshot.nodes)
        for record in holding:
            with about(record.id), self._apart.of(record):
                records = self._executor.progress(record.run_id)
                progress = fold(self.progress_of(record), records)
                self._progress[record.run_id] = progress
                self._move(record, observed[record.run_id], progress, snapshot, here)

    def _move(
        self, record: Record, run: RunObservation, progress: Progress, snapshot: Snapshot, here: frozenset[str]
    ) -> None:
        """Bring a workload's state in line with what was seen of its run."""
        if record.state == "starting" and progress.phase != "starting" and run.state != "lost":
            record = replace(record, state="running")  # also of one that has ended since the last look
            self._store.put(record, self._event("running", "its body reported the first step or row", record.id))
        if not run.ended:
            self._looks.saw(record.run_id, self._clock())
            if record.state == "stopping":  # the first stop may not have reached the cluster
                self._executor.stop(record.run_id, self._grace_s(record))
            elif self._lost_a_node(record, here):
                return
            self._learn_early(record, progress, snapshot)
            return
        run = moves.judged(record, run, progress, here)
        if run.state == "lost" and record.state == "starting" and self._resubmit(record, progress, snapshot):
            return
        self._on_end(record)
        now_s = run.ended_s or self._clock()
        if run.state == "lost" and run.ended_s is None:
            # It ended while nobody looked: what is paid for is what it is known to have held.
            now_s = self._looks.last_s(record, progress.last_s, now_s)
        after, event = moves.ended(record, run, progress, now_s, self._clock())
        self._end_attempt(record, after, event, now_s)
        if after.state == "succeeded" and record.kind == "benchmark":
            self._learn_rates(record, progress, snapshot)
        elif after.state == "succeeded" and record.attempt == 1 and not progress.resumed:
            self._learn(record, progress, now_s, snapshot)

    def _end_attempt(self, record: Record, after: Record, event: Event, now_s: float) -> None:
        """An attempt is over: what it held is charged in the same step."""
        charges = charges_of(record, now_s)
        self._store.put(after, replace(event, cycle=self.cycle, at_s=self._clock()), charges=charges)
        self._spending.add(charges)
        self._has_ended(record.run_id)

    def _lost_a_node(self, record: Record, here: frozenset[str]) -> bool:
        """Stop a run that lost a node some cycles ago and has not ended by itself."""
        nodes = self._without_node.too_long(record, here)
        if not nodes:
            return False
        event = self._event("stopping", f"node {', '.join(nodes)} left the cluster", record.id)
        self._store.put(replace(record, state="stopping"), event)
        self._executor.stop(record.run_id)
        return True

    def _resubmit(self, record: Record, progress: Progress, snapshot: Snapshot) -> bool:
        """A run that was recorded but that the cluster never heard of, or has not yet (the service was killed, or the
        request timed out), is submitted again under the same id: it can then neither be lost nor run twice."""
        here = {node.node_id for node in snapshot.nodes}
        on_nodes = record.placement is not None and all(node in here for _, node in record.placement.devices)
        if progress.last_s is not None or not on_nodes or self._resubmitted[record.run_id] >= MAX_RESUBMISSIONS:
            return False
        self._resubmitted[record.run_id] += 1
        self._store.append(self._event("resubmitted", "the cluster does not know the run yet", record.id))
        self._submit(record, snapshot)
        return True

    def _learn(self, record: Record, progress: Progress, ended_s: float, snapshot: Snapshot) -> None:
        if record.work is None or record.placement is None or record.started_s is None:
            return
        refused = learn(
            self._calibration,
            record.work,
            record.placement.configuration,
            progress,
            ended_s - record.started_s,
            facts_of(self.as_measured(snapshot)),
        )
        for sentence in refused:
            self._store.append(self._event("measurement-refused", sentence, record.id))
        self._keep_learnt()

    def _learn_early(self, record: Record, progress: Progress, snapshot: Snapshot) -> None:
        """What the first items say of how long all of them take, where nothing was known of that."""
        if record.work is None or not record.work.items or not progress.timings:
            return
        if learn_first_items(self._calibration, record.work, progress, facts_of(self.as_measured(snapshot))):
            self._store.append(self._event("items-measured", "its first items say how long all take", record.id))
            self._keep_learnt()

    def _learn_rates(self, record: Record, progress: Progress, snapshot: Snapshot) -> None:
        """What a benchmark measured changes the rates that estimates start from; its own duration teaches nothing."""
        held = {name for name, _ in record.placement.configuration.groups} if record.placement is not None else set()
        found = [rates for rates in progress.rates if rates.device_type in held]
        lesson = learn_rates(self._rates, found, snapshot)
        for sentence in lesson.refused:
            self._store.append(self._event("measurement-refused", sentence, record.id))
        if lesson.measured:
            self._rates = lesson.known
            self._against = in_terms_of(self._calibration, self._against, self.as_measured(snapshot))
            self._keep_learnt()
            self._store.append(self._event("rates-measured", "; ".join(lesson.measured), record.id))

    def _promote(self) -> None:
        """Workloads whose needs are met join the queue; those whose needs failed end."""
        changes = list[tuple[Record, Sequence[Event]]]()
        for record, needs in self._needs.of(self._store.select(states=["pending"])):
            broken = [need for need in needs if need.state in ENDED and need.state != "succeeded"]
            if broken:
                message = f"{broken[0].name} {broken[0].state}, and this needs it"
                after = replace(record, state="failed", message=message, ended_s=self._clock())
                changes.append((after, [self._event("failed", message, record.id)]))
            elif record.paused or record.cancel_requested or (record.not_before_s or 0.0) > self._clock():
                continue
            elif all(need.state == "succeeded" for need in needs):
                with about(record.id):
                    changes.append(self._queued(record, needs))
        self._put_all(changes)

    def _queued(self, record: Record, needs: Sequence[Record]) -> tuple[Record, Sequence[Event]]:
        upstream = {need.name: Upstream(need.name, need.kind, need.output, need.result) for need in needs}
        after, event = moves.queued(record, self._profiler, upstream, self._clock())
        return after, [replace(event, cycle=self.cycle, at_s=self._clock())]

    def _put_all(self, changes: Sequence[tuple[Record, Sequence[Event]]]) -> None:
        for begin in range(0, len(changes), WRITTEN_AT_ONCE):
            self._store.put_all(changes[begin : begin + WRITTEN_AT_ONCE])

    def _keep_limits(self) -> Closed:
        """Pause what would pass its budget, and find the queues that have spent their month."""
        now_s = self._clock()
        holding = self._store.select(states=HOLDS_DEVICES)
        for record in holding:
            if not record.paused and over_budget(record, self.progress_of(record), now_s, self._cycle_s):
                event = self._event("budget-spent", f"{BUDGET_SPENT}: it is stopped with a checkpoint", record.id)
                self._store.change(record.id, event, paused=True, pause_cause=BUDGET_SPENT)
        if not same_month(self._spending, now_s):
            month = month_of(now_s)
            self._spending.begin(month, self._store.charges(since=f"{month}-01", until=f"{month}-31"))
        return closed_queues(self._queues, self._spending, holding, now_s, self._cycle_s)

    # 2. Estimate

    def _estimate(self, snapshot: Snapshot, closed: Closed) -> Situation:
        """What the policy may look at. What may hold nothing (it is paused, or its queue's month is spent) is not
        there, or on its way out."""
        found = self._store.select(states=("queued", *HOLDS_DEVICES))
        going = {record.id for record in found if _may_not_hold(record, closed)} | set(self._leaving)
        records = [record for record in found if record.placement is not None or record.id not in going]
        snapshot = self.as_measured(snapshot)
        known = self._estimates.of(records, snapshot, self._calibration)
        views = [
            view_of(record, each, self.progress_of(record), self._clock(), leaving=record.id in going)
            for record, each in zip(records, known, strict=True)
        ]
        prices = dict(self._congestion_usd_h)
        memory = self._memory.handed_over()
        return Situation(self.cycle, self._clock(), self._seed, snapshot, tuple(views), prices, memory, self._queues)

    # 3. Plan

    def _plan(self, situation: Situation) -> tuple[Situation, Plan]:
        """The plan, and the situation as it was planned for. The policy has a copy of its notes: what it does with
        them changes no report. Notes of an earlier service that make it fail are dropped."""
        try:
            return situation, self._policy.plan(replace(situation, memory=self._memory.handed_over()))
        except Exception:
            if not self._memory.untried:
                raise
            log.warning("the policy fails with the notes of the last service: it starts without them", exc_info=True)
            self._memory.drop()
        without = replace(situation, memory={})
        return without, self._policy.plan(replace(without, memory={}))

    def _explain(self, plan: Plan) -> None:
        """Tell the log each decision that changed; what can never run within its budget ends, or is paused where that
        has paid for something already."""
        waiting = [record for record in self._store.select(states=("queued",)) if record.id in plan.explanations]
        events = [
            self._event("planned", said.summary, record.id, chosen=str(said.chosen) if said.chosen else None)
            for record, said in self._said.changes(waiting, plan.explanations)
        ]
        if events:
            self._store.append(*events)
        for record in waiting:
            if record.budget_usd is None:
                continue
            explanation = plan.explanations[record.id]
            hopeless = moves.hopeless(explanation)
            if hopeless is not None:
                self._give_up(record, explanation, hopeless)

    def _give_up(self, record: Record, explanation: Explanation, why: str) -> None:
        if record.fraction > 0:
            event = self._event("budget-spent", why, record.id)
            self._store.change(record.id, event, paused=True, pause_cause=BUDGET_SPENT)
            return
        failed = replace(record, state="failed", explanation=explanation, message=why, ended_s=self._clock())
        self._store.put(failed, self._event("failed", why, record.id))

    # 6. Execute

    def _execute(self, actions: Sequence[Action], plan: Plan, snapshot: Snapshot) -> None:
        """Records are written before the cluster is asked, so that a crash in between leaves a run that can be found
        (`lost`, and tried again), never one that nobody knows of."""
        now_s = self._clock()
        changes = list[tuple[Record, Sequence[Event]]]()
        stops, starts = list[Record](), list[Record]()
        for action in actions:
            record = self._store.get(action.workload_id)
            if record is None:
                continue
            match action:
                case Start(placement=placement):
                    after = moves.started(record, placement, snapshot, now_s, plan.explanations.get(record.id))
                    changes.append((after, [self._starting(after)]))
                    starts.append(after)
                case Stop(cause=cause):
                    changes.append((replace(record, state="stopping"), [self._event("stopping", cause, record.id)]))
                    stops.append(record)
                case Drop(cause=cause):
                    after = replace(record, state="cancelled", message=cause, ended_s=now_s)
                    changes.append((after, [self._event("cancelled", cause, record.id)]))
                case Hold() | Unhold():
                    after, event = (moves.paused if isinstance(action, Hold) else moves.resumed)(record, now_s)
                    changes.append((after, [replace(event, cycle=self.cycle, at_s=now_s)]))
        self._put_all(changes)
        for record in stops:
            with about(record.id):
                self._executor.stop(record.run_id, self._grace_s(record))
        for record in starts:
            with about(record.id):
                self._submit(record, snapshot)

    def _grace_s(self, record: Record) -> float:
        """Seconds that a run may take to save: within its budget, and before its node is gone."""
        seconds = grace_s(record, self._clock(), self._cycle_s)
        if record.id in self._leaving:
            seconds = min(seconds, max(0.0, self._leaving[record.id][1] - self._clock() - BEFORE_GONE_S))
        return seconds

    def _starting(self, record: Record) -> Event:
        """The event of an attempt that begins; of the attempts before it nobody asks any more."""
        for run_id in (record.run_id, replace(record, attempt=record.attempt - 1).run_id):
            self._progress.pop(run_id, None)
        return replace(moves.starting(record), cycle=self.cycle, at_s=self._clock())

    def _submit(self, record: Record, snapshot: Snapshot) -> None:
        """Hand a recorded attempt to the cluster; what it refuses has failed, the others go on."""
        try:
            self._executor.start(run_request(record, snapshot))
        except ClusterUnreachable:
            raise
        except Exception as error:
            log.exception("cycle %d: %s could not be started", self.cycle, record.id)
            message = f"could not be started: {error}"
            said = {"message": message, "retryable": getattr(error, "retryable", True)}
            run = RunObservation(record.run_id, "failed", message)
            after, event = moves.ended(record, run, Progress(failed=said), self._clock())
            self._end_attempt(record, after, event, self._clock())

    def _event(self, kind: str, cause: str, workload_id: str | None = None, **data: object) -> Event:
        return Event(kind, cause, workload_id, self.cycle, self._clock(), data)


def _may_not_hold(record: Record, closed: Closed) -> bool:
    """Whether it must give back what it holds, and gets nothing."""
    return record.paused or (record.queue in closed.why and (record.placement is None or resumes(record)))
