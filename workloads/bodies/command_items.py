"""`command` with `items`: a shell command or the user's own function for each of many items; this is the driver.

Workers are started once, one on each device, and pull blocks of items, so that each takes as many as it is fast (see
`item_queue`). The driver alone writes results (see `item_results`).
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray

from ..commands import environment
from ..errors import SpecError, WorkloadFailed
from ..items import is_range, read_items
from ..job import Job, ProgressWriter
from ..spec import Command
from .blocks import Block
from .folders import local_folder
from .item_queue import ItemQueue
from .item_results import RESULTS, FailedItem, Results
from .item_worker import ItemWorker, Outcome, Task, is_final
from .placement import gang, in_bundle, remote_options

IN_FLIGHT = 2
"""Blocks of each worker: it goes on with the second while the driver has the first."""
HOPELESS = 20
"""So many failures for good, and no success: what is run is wrong, not the items."""
START_S = 300.0
"""How long a worker may take to start before the others go on without it."""
MOST_DEATHS = 5
"""Of one worker, not counting those that an item is to blame for."""
TIMING_EVERY_S = 5.0
_STARTING = Block(-1, 0, 0)


@dataclass
class Member:
    """One worker's place in the gang, and the calls it has not answered."""

    index: int
    device_type: str
    actor: Any = None
    calls: dict[Any, Block] = field(default_factory=dict)
    deaths: int = 0
    started_s: float = 0.0
    timing: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds and items since the last timing record."""

    @property
    def ready(self) -> bool:
        """Whether it can be given items."""
        return self.actor is not None and _STARTING not in self.calls.values()


class ItemRun:
    """One attempt."""

    def __init__(self, job: Job, progress: ProgressWriter) -> None:
        self.job, self.progress = job, progress
        self.spec = Command.model_validate(job.spec)
        assert self.spec.items is not None
        self.items = read_items(self.spec.items)
        self.results = Results(local_folder(job.output), job.workload_id, self.items)
        self.todo = [index for index in range(len(self.items)) if index not in self.results.done]
        self.queue = ItemQueue.of(len(self.todo))
        self.members = [Member(index, shard.device_type) for index, shard in enumerate(job.shards)]
        self.tries: Counter[int] = Counter()
        self.done_before = len(self.results.done)
        self.begun_s = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Do every item that has no result. Raises WorkloadFailed where too many fail."""
        if self.done_before:
            self.progress.write("resumed", rows=self.done_before, **{"from": f"{self.done_before} finished items"})
        try:
            if self.todo:
                with gang(self.job.run_id, *self._bundles()) as self.group:
                    self._do_all()
            self.progress.write("phase", phase="finishing")
            self._report(last=True)
            for member in self.members:
                self._report_timing(member, last=True)
            self.results.finish(time.monotonic() - self.begun_s)
        finally:
            self.results.close()
        return self._done()

    def _bundles(self) -> tuple[list[Any], list[str]]:
        return [shard.resources for shard in self.job.shards], [shard.node_id for shard in self.job.shards]

    def _done(self) -> dict[str, Any]:
        failed = self.results.failed
        if len(failed) > self.spec.max_failed:
            what = f"{len(failed)} of {len(self.items)} items failed, and {self.spec.max_failed} may"
            raise WorkloadFailed(f"{what}; {_described(failed[0])}", retryable=True)
        outputs = {"output": self.job.output, "results": str(self.results.folder / RESULTS)}
        metrics = {"items": len(self.items), "failed": len(failed)}
        return {"outputs": outputs, "metrics": metrics, "rows": len(self.results.done)}

    # -- workers ----------------------------------------------------------------------------------------------------

    def _do_all(self) -> None:
        for member in self.members:
            self._start(member)
        while not self.queue.finished:
            for _ in range(IN_FLIGHT):
                self._give_work()
            self._collect()

    def _start(self, member: Member) -> None:
        shard = self.job.shards[member.index]
        task = Task(
            self.spec.command,
            self.spec.entrypoint,
            {**environment(self.job), "RAYWISE_DEVICE_TYPE": shard.device_type},
            self.spec.item_timeout,
            numbers=is_range(self.spec.items),
        )
        member.actor = (
            ray.remote(ItemWorker)
            .options(**remote_options(shard.resources), scheduling_strategy=in_bundle(self.group, member.index))
            .remote(task, shard.device_type, shard.emulated_speed)
        )
        member.calls = {member.actor.prepare.remote(): _STARTING}
        member.started_s = time.monotonic()

    def _give_work(self) -> None:
        """One more block for each worker that has room, those with the fewest first."""
        workers = [member for member in self.members if member.actor is not None]
        for member in sorted(workers, key=lambda each: len(each.calls)):
            if member.ready and len(member.calls) < IN_FLIGHT:
                block = self.queue.take(member.index, len(workers))
                if block is not None:
                    indices = self.todo[block.start : block.stop]
                    items = [(index, self.items[index]) for index in indices]
                    member.calls[member.actor.run.remote(items)] = block

    def _collect(self) -> None:
        owners = {call: member for member in self.members for call in member.calls}
        if not owners:
            raise WorkloadFailed("no worker is left to go on with", retryable=True)
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=1.0)
        for call in ready:
            self._answer(owners[call], call)
        for member in self.members:
            if _STARTING in member.calls.values() and time.monotonic() - member.started_s > START_S:
                self._give_up(member, f"a worker on {member.device_type} did not start within {START_S:.0f} s")

    def _answer(self, member: Member, call: Any) -> None:
        block = member.calls[call]
        try:
            result = ray.get(call)
        except ray.exceptions.RayActorError as error:
            self._lost(member, str(error).strip().splitlines()[0])
            return
        except ray.exceptions.RayTaskError as error:
            raise _why(error) from error
        del member.calls[call]
        if block == _STARTING:
            self.progress.write("phase", phase="running")
        else:
            self._commit(member, block, *result)

    def _lost(self, member: Member, reason: str) -> None:
        """Start the worker again, or go on without it. An item that it died of has failed."""
        member.calls, member.actor = {}, None
        blamed = self.queue.lost(member.index)
        for block in blamed:
            self._failed(member, block.start, "the worker died each time it was given this item")
        member.deaths += not blamed
        if member.deaths > MOST_DEATHS:
            self._give_up(member, f"a worker on {member.device_type} died too often ({reason})")
        else:
            self.progress.write("note", message=f"a worker on {member.device_type} died; it is started again")
            self._start(member)

    def _give_up(self, member: Member, message: str) -> None:
        if member.actor is not None:
            ray.kill(member.actor)
        member.calls, member.actor = {}, None
        if not any(other.actor is not None for other in self.members):
            raise WorkloadFailed(message, retryable=True)
        self.progress.write("note", message=f"{message}; the others go on")

    # -- results ----------------------------------------------------------------------------------------------------

    def _commit(self, member: Member, block: Block, outcomes: list[Outcome], seconds: float) -> None:
        well = [(place, each.line) for place, each in enumerate(outcomes) if not each.error]
        if well:
            indices = [self.todo[block.start + place] for place, _ in well]
            self.results.add(indices, [line for _, line in well], member.device_type)
        self.queue.cut(member.index, block, len(outcomes), seconds)
        member.timing = [member.timing[0] + seconds, member.timing[1] + len(outcomes)]
        self._report_timing(member)
        for place, outcome in enumerate(outcomes):
            if outcome.error:
                self._failed(member, block.start + place, outcome.error)
        self._report()

    def _failed(self, member: Member, position: int, error: str) -> None:
        self.tries[position] += 1
        if self.tries[position] <= self.spec.item_retries and not is_final(error):
            self.queue.again(position)
            return
        index = self.todo[position]
        failed = FailedItem(index, self.items[index], error, self.tries[position])
        self.results.add_failed(failed)
        if len(self.results.failed) <= 3:
            self.progress.write("note", message=f"{_described(failed)} (on {member.device_type})")
        if not self.results.done and len(self.results.failed) >= max(HOPELESS, self.spec.max_failed + 1):
            count = len(self.results.failed)
            raise WorkloadFailed(f"none of the first {count} items succeeded; {_described(failed)}")

    def _report(self, last: bool = False) -> None:
        """Rows that are settled; an item that failed for good is one of them."""
        done = len(self.results.done)
        seconds = max(time.monotonic() - self.begun_s, 1e-9)
        rate, by_device = round((done - self.done_before) / seconds, 3), dict(sorted(self.results.by_device.items()))
        settled = done + len(self.results.failed)
        write = self.progress.write if last else self.progress.maybe
        write("rows", rows=settled, total_rows=len(self.items), rows_s=rate, by_device=by_device)

    def _report_timing(self, member: Member, last: bool = False) -> None:
        seconds, items = member.timing
        if items and (last or seconds >= TIMING_EVERY_S):
            member.timing = [0.0, 0.0]
            self.progress.write(
                "timing", device_type=member.device_type, count=1, seconds=round(seconds, 6), samples=int(items),
                tokens=0, unit="row", precision="",
            )  # fmt: skip


def _described(failed: FailedItem) -> str:
    return f"item {failed.item!r} (number {failed.index}): {failed.error}"


def _why(error: Exception) -> WorkloadFailed:
    cause = getattr(error, "cause", None)
    if isinstance(cause, WorkloadFailed | SpecError):
        return WorkloadFailed(str(cause))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WorkloadFailed(f"a worker cannot start or go on: {lines[-1]}", retryable=True)
