"""The gate: what depends on files, models, devices and prices is checked here, before anything starts, and the work is
put into numbers. This is the part of the scheduler that does I/O on the user's data."""

from .admit import StepPlan, admit, plan_steps
from .profiler import FileProfiler

__all__ = ["FileProfiler", "StepPlan", "admit", "plan_steps"]
