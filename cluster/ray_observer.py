"""Observes a real Ray cluster: one question to its control service, one `Snapshot`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .catalog import Catalog
from .gcs import ControlService
from .host import HostRates
from .inventory import build_snapshot
from .types import Snapshot


class RayObserver:
    """An `Observer` of the cluster whose control service is at `address` (`host:port`).

    `host` are the rates of a core of the machines (for `cpu` and emulated devices); `token_path` holds the cluster's
    token. Nothing is connected before the first snapshot; a cluster that went away and came back at the same address is
    found again.
    """

    def __init__(
        self,
        address: str,
        catalog: Catalog,
        host: HostRates | None = None,
        token_path: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._service = ControlService(address, token_path)
        self._catalog = catalog
        self._host = host
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """The cluster now: living nodes only. Answers, or raises ClusterUnreachable, within 5 s."""
        return build_snapshot(self._clock(), self._service.nodes(), self._catalog, self._host)

    def close(self) -> None:
        """Close the connection."""
        self._service.close()
