"""What the engine asks of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..estimate.calibration import Calibration
from ..estimate.device_rates import DeviceRates, LearntAgainst
from .records import Charge, Event, Record, Rental


class EngineStore(Protocol):
    """Workloads, events and what was learnt: on disk for a service, in memory for a simulation."""

    def put(self, record: Record, *events: Event, charges: Sequence[Charge] = ()) -> None:
        """Replace a workload's record, append what happened and what it cost, in one step. What belongs to the user
        (`OWNED_BY_USER`) stays as it is stored."""
        ...

    def put_all(self, changes: Sequence[tuple[Record, Sequence[Event]]], charges: Sequence[Charge] = ()) -> None:
        """As `put`, of several workloads in one step."""
        ...

    def change(self, workload_id: str, event: Event, **changes: Any) -> Record | None:
        """Set what belongs to the user."""
        ...

    def append(self, *events: Event) -> None:
        """Append events that change no workload."""
        ...

    def get(self, workload_id: str) -> Record | None:
        """One workload, or None."""
        ...

    def select(self, *, states: Iterable[str] | None = None) -> Sequence[Record]:
        """Workloads in the order of their submission."""
        ...

    def charges(self, *, since: str = "", until: str = "9999") -> Sequence[Charge]:
        """What ended attempts held, from one day to another, both included."""
        ...

    def put_rentals(self, rentals: Sequence[Rental], *events: Event) -> None:
        """Add or replace rented nodes, and append what happened to them, in one step."""
        ...

    def rentals(self, *, ended: bool | None = None, since_s: float = 0.0) -> Sequence[Rental]:
        """Rented nodes that are there or on their way still, or those that ended since then, or both, in the order of
        their requests."""
        ...

    def last_cycle(self) -> int:
        """The number of the last cycle that left an event."""
        ...

    def load_calibration(self) -> Calibration:
        """Everything learnt so far."""
        ...

    def load_device_rates(self) -> Mapping[str, DeviceRates]:
        """What benchmarks measured of device types."""
        ...

    def load_learnt_against(self) -> LearntAgainst:
        """The rates that what was learnt is in terms of."""
        ...

    def save_calibration(
        self,
        calibration: Calibration,
        rates: Mapping[str, DeviceRates] | None = None,
        against: LearntAgainst | None = None,
    ) -> None:
        """Replace what was learnt; rates of either kind stay as they are where they are None."""
        ...

    def load_policy_memory(self) -> str | None:
        """What was saved last; None where nothing was."""
        ...

    def save_policy_memory(self, text: str) -> None:
        """Replace a policy's notes, as the engine writes them."""
        ...

    def load_last_look(self) -> float | None:
        """When runs were last looked at, as it was saved last, in Unix seconds; None where nothing was."""
        ...

    def save_last_look(self, at_s: float) -> None:
        """Replace it."""
        ...
