"""Observes a real Ray cluster: one question to its control service, one `Snapshot`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .backoff import FIRST_S
from .catalog import Catalog
from .gcs import ControlService
from .host import HostRates
from .inventory import Offer, build_snapshot
from .protocols import NothingToRent, Provider
from .ray_provider import RayProvider
from .types import Snapshot


@dataclass(frozen=True)
class Renting:
    """What may be rented on a cluster, and within which limits (`Snapshot`)."""

    offers: tuple[Offer, ...]
    cap_usd_h: float | None = None
    cap_usd_month: float | None = None
    first_backoff_s: float = FIRST_S


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
        renting: Renting | None = None,
    ) -> None:
        self._service = ControlService(address, token_path)
        self._catalog = catalog
        self._host = host
        self._clock = clock
        self._renting, self._lock = renting, threading.Lock()
        self.provider: Provider = NothingToRent()
        """Rents what `renting` offers, through Ray's autoscaler."""
        self._rented: RayProvider | None = None
        if renting is not None:
            self._rented = RayProvider(self._service, renting.offers, clock, renting.first_backoff_s)
            self.provider = self._rented

    def snapshot(self) -> Snapshot:
        """The cluster now: living nodes only, and what may be rented beside them. Answers, or raises
        ClusterUnreachable, within 15 s."""
        if self._renting is None or self._rented is None:
            return build_snapshot(self._clock(), self._service.nodes(), self._catalog, self._host)
        with self._lock:  # an older look must not be settled after a newer one
            nodes, launches = self._service.nodes_and_launches()
            launching = self._rented.observed(nodes, launches)
        found = build_snapshot(self._clock(), nodes, self._catalog, self._host, self._renting.offers, launching)
        return replace(found, rent_cap_usd_h=self._renting.cap_usd_h, rent_cap_usd_month=self._renting.cap_usd_month)

    def close(self) -> None:
        """Close the connection."""
        self._service.close()
