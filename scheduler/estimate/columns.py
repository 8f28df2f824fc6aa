"""Workloads and configurations as rows of numbers: what `rows` computes with. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.types import DeviceType

from ..types import Configuration
from .calibration import Subject
from .hardware import Rates, rates
from .profile import OPERATOR_CLASSES
from .work import Work

_NO_RATES = Rates(np.full(len(OPERATOR_CLASSES), np.nan), np.full(len(OPERATOR_CLASSES), np.nan), math.nan, False)


@dataclass
class Numbers:
    """Gives equal things one number each, in the order they come."""

    values: list[Any] = field(default_factory=list)
    index: dict[Any, int] = field(default_factory=dict)

    def of(self, key: Any, value: Any) -> int:
        """The number of `key`; `value` is kept where it is new."""
        number = self.index.get(key)
        if number is None:
            number = self.index[key] = len(self.values)
            self.values.append(value)
        return number


class Columns:
    """Rows to be computed together. Add workloads in order; `speeds` answers configuration by configuration."""

    def __init__(
        self, device_types: Mapping[str, DeviceType], network_bytes_s: float, devices_per_node: Mapping[str, int]
    ) -> None:
        self.device_types = device_types
        self.network_bytes_s = network_bytes_s
        self.devices_per_node = devices_per_node
        self.works: list[Work] = []
        self.work_starts: list[int] = []
        self.config_starts: list[int] = []
        self.rows: list[tuple[int, int, int, int, int, int, int, int]] = []
        """(work, rates, subject, count, shards in all, nodes, most on one node, profile)"""
        self.devices: list[DeviceType] = []
        self.rates = Numbers()
        self.subjects = Numbers()
        self.profiles = Numbers()

    def add(self, work: Work, configurations: Sequence[Configuration]) -> None:
        """All configurations of one workload that has a profile."""
        assert work.profile is not None
        number = len(self.works)
        self.works.append(work)
        self.work_starts.append(len(self.rows))
        known = {
            name: (self._rates(kind, work.precision), self._subject(work, kind), self._profile(work, kind), kind)
            for name, kind in self.device_types.items()
        }
        for configuration in configurations:
            self.config_starts.append(len(self.rows))
            nodes = fullest = shards = 0
            for name, count in configuration.groups:
                per_node = self.devices_per_node.get(name) or count
                nodes += -(-count // per_node)
                fullest = max(fullest, min(count, per_node))
                shards += count
            for name, count in configuration.groups:
                rate, subject, profile, device = known[name]
                self.rows.append((number, rate, subject, count, shards, nodes, fullest, profile))
                self.devices.append(device)

    def _rates(self, device: DeviceType, precision: str) -> int:
        key = (device.name, precision)
        found = self.rates.index.get(key)
        return found if found is not None else self.rates.of(key, (rates(device, precision) or _NO_RATES, device))

    def _profile(self, work: Work, device: DeviceType) -> int:
        host = device.kind == "cpu" or device.emulated
        profile = work.host_profile if host and work.host_profile is not None else work.profile
        return self.profiles.of(id(profile), profile)

    def _subject(self, work: Work, device: DeviceType) -> int:
        name = device.name
        if device.emulated_speed is not None:
            name = f"{name}~emulated@{device.emulated_speed:g}"
        subject = (work.kind, work.family, name, work.precision)
        found = self.subjects.index.get(subject)
        return found if found is not None else self.subjects.of(subject, Subject(*subject))
