"""How calibration knows device types and configurations. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.types import DeviceType


def configuration_key(types: Sequence[tuple[DeviceType, int]]) -> str:
    """How history knows a configuration."""
    return "+".join(f"{calibration_name(kind)}x{count}" for kind, count in types)


def one_device(device_type: DeviceType) -> str:
    """How history knows a single device of a type."""
    return configuration_key([(device_type, 1)])


def calibration_name(device_type: DeviceType) -> str:
    """The name calibration knows a device type by: emulated ones never mix with the hardware they stand for."""
    if device_type.emulated_speed is None:
        return device_type.name
    return f"{device_type.name}~emulated@{device_type.emulated_speed:g}"
