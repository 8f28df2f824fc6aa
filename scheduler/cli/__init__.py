"""The command line: a composition root. Every verb speaks to the service; `plan` and `demo` also work without one."""

from .app import app

__all__ = ["app"]
