"""What must survive: workloads, the append-only event log, calibration, users' tokens, what was paid. In SQLite (WAL)
or PostgreSQL; or in memory, for what is only simulated."""

from .database import StoreError, StoreUnclearError
from .listing import Filter, Page, Spending
from .memory import MemoryStore
from .protocol import EngineStore
from .records import Charge, Event, Record, Rental
from .schema import SCHEMA_VERSION
from .store import Store
from .tokens import Token, TokenTable

__all__ = [
    "SCHEMA_VERSION",
    "Charge",
    "EngineStore",
    "Event",
    "Filter",
    "MemoryStore",
    "Page",
    "Record",
    "Rental",
    "Spending",
    "Store",
    "StoreError",
    "StoreUnclearError",
    "Token",
    "TokenTable",
]
