"""What must survive: workloads, the append-only event log, calibration. SQLite in WAL mode; or a memory, for what is
only simulated."""

from .memory import MemoryStore
from .protocol import EngineStore
from .records import Event, Record
from .sqlite import Store

__all__ = ["EngineStore", "Event", "MemoryStore", "Record", "Store"]
