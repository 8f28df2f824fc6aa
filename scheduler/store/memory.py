"""A store that keeps nothing: records and events as they are, in this process. For simulations and what else is never
taken up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..estimate.calibration import Calibration
from ..estimate.device_rates import DeviceRates, LearntAgainst
from ..states import ENDED, check_transition
from .records import Charge, Event, Record, Rental, keeping_the_users


class MemoryStore:
    """What the engine asks of a store, without a file."""

    def __init__(self, calibration: Calibration | None = None, keep_events: bool = True) -> None:
        """`keep_events` false: they are forgotten at once."""
        self._live: dict[str, Record] = {}
        self._ended: dict[str, Record] = {}
        self._events: list[Event] = []
        self._keep_events, self._cycle = keep_events, 0
        self._calibration = calibration or Calibration()
        self._rates: Mapping[str, DeviceRates] = {}
        self._against: LearntAgainst = {}
        self._policy_memory: str | None = None
        self._last_look_s: float | None = None
        self._rentals: dict[str, Rental] = {}

    def add(self, records: Sequence[Record], events: Sequence[Event]) -> None:
        """Accept new workloads. Raises ValueError where an id is taken."""
        for record in records:
            if record.id in self._live or record.id in self._ended:
                raise ValueError(f"there is a workload {record.id} already")
            self._live[record.id] = record
        self.append(*events)

    def put_all(self, changes: Sequence[tuple[Record, Sequence[Event]]], charges: Sequence[Charge] = ()) -> None:
        """Replace several records. Charges are not kept: records have their sums."""
        del charges
        for record, events in changes:
            self.put(record, *events)

    def change(self, workload_id: str, event: Event, **changes: Any) -> Record | None:
        """Set what belongs to the user; None where the workload is unknown."""
        before = self.get(workload_id)
        if before is None:
            return None
        after = replace(before, **changes)
        (self._ended if after.state in ENDED else self._live)[workload_id] = after
        self.append(event)
        return after

    def put(self, record: Record, *events: Event, charges: Sequence[Charge] = ()) -> None:
        """Replace a record; the move must be in the table of transitions. Charges are not kept."""
        del charges
        before = self._live.get(record.id) or self._ended[record.id]
        if before.state != record.state:
            check_transition(record.id, before.state, record.state)
        record = keeping_the_users(record, before)
        if record.state in ENDED:
            self._live.pop(record.id, None)
            self._ended[record.id] = record
        else:
            self._live[record.id] = record
        self.append(*events)

    def append(self, *events: Event) -> None:
        """Append events."""
        for event in events:
            self._cycle = max(self._cycle, event.cycle or 0)
            if self._keep_events:
                self._events.append(replace(event, sequence=len(self._events) + 1))

    def get(self, workload_id: str) -> Record | None:
        """One workload, or None."""
        return self._live.get(workload_id) or self._ended.get(workload_id)

    def select(self, *, states: Iterable[str] | None = None) -> list[Record]:
        """Workloads in the order of their submission; all that live before those that ended."""
        if states is None:
            return [*self._live.values(), *self._ended.values()]
        wanted = frozenset(states)
        found = [record for record in self._live.values() if record.state in wanted]
        if wanted & ENDED:
            found += [record for record in self._ended.values() if record.state in wanted]
        return found

    def events(self) -> list[Event]:
        """All events, oldest first."""
        return list(self._events)

    def charges(self, *, since: str = "", until: str = "9999") -> list[Charge]:
        """None: nothing is taken up again."""
        del since, until
        return []

    def put_rentals(self, rentals: Sequence[Rental], *events: Event) -> None:
        """Add or replace rented nodes."""
        self._rentals |= {each.id: each for each in rentals}
        self.append(*events)

    def rentals(self, *, ended: bool | None = None, since_s: float = 0.0) -> list[Rental]:
        """Rented nodes that are there or on their way still, or those that ended since then, or both."""
        return [
            each
            for each in self._rentals.values()
            if (each.ended_s is None and ended is not True)
            or (each.ended_s is not None and ended is not False and each.ended_s >= since_s)
        ]

    def last_cycle(self) -> int:
        """The number of the last cycle that left an event."""
        return self._cycle

    def load_calibration(self) -> Calibration:
        """What the store was made with, and what was saved since."""
        return self._calibration

    def load_device_rates(self) -> dict[str, DeviceRates]:
        """What benchmarks measured."""
        return dict(self._rates)

    def load_learnt_against(self) -> LearntAgainst:
        """The rates that what was learnt is in terms of."""
        return dict(self._against)

    def save_calibration(
        self,
        calibration: Calibration,
        rates: Mapping[str, DeviceRates] | None = None,
        against: LearntAgainst | None = None,
    ) -> None:
        """Keep what was learnt."""
        self._calibration = calibration
        self._rates = self._rates if rates is None else rates
        self._against = self._against if against is None else against

    def load_policy_memory(self) -> str | None:
        """What was saved last."""
        return self._policy_memory

    def save_policy_memory(self, text: str) -> None:
        """Keep a policy's notes."""
        self._policy_memory = text

    def load_last_look(self) -> float | None:
        """What was saved last."""
        return self._last_look_s

    def save_last_look(self, at_s: float) -> None:
        """Keep when runs were looked at."""
        self._last_look_s = at_s
