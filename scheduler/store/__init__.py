"""What must survive: workloads, the append-only event log, calibration. SQLite in WAL mode."""

from .records import Event, Record
from .sqlite import Store

__all__ = ["Event", "Record", "Store"]
