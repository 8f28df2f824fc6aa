"""The engine: one cycle observes, estimates, plans, validates, reconciles and executes."""

from .engine import Engine
from .profiler import Profiler, Upstream

__all__ = ["Engine", "Profiler", "Upstream"]
