"""One workload's trouble is not everybody's: what goes wrong over one record leaves the cycle to the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.protocols import ClusterUnreachable

from ..store import Record, StoreError

log = logging.getLogger(__name__)

SAID_AGAIN = 600
"""After so many cycles in a row the same trouble is logged again."""


class Apart:
    """For how many cycles in a row each run has been in trouble."""

    def __init__(self) -> None:
        self._cycles: dict[str, int] = {}

    @contextmanager
    def of(self, record: Record) -> Iterator[None]:
        """Whatever is raised about this workload is logged, and tried again in the next cycle; a cluster or store that
        cannot be reached is nobody's own."""
        try:
            yield
        except (ClusterUnreachable, StoreError):
            raise
        except Exception:
            cycles = self._cycles.get(record.run_id, 0)
            self._cycles[record.run_id] = cycles + 1
            if cycles % SAID_AGAIN == 0:
                log.exception("workload %s could not be brought up to date: the others go on", record.id)
        else:
            self._cycles.pop(record.run_id, None)
