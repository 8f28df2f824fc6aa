"""The catalog: device types and instance types by name, and what one device costs an hour."""

from __future__ import annotations

import calendar
import datetime
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workloads.errors import Problem, SpecError

from ..types import CPU, DeviceType, Market
from .aliases import ALIASES, normalise
from .tables import KINDS, PRECISIONS, InstanceType, Row, read_tables

SHIPPED = Path(__file__).parent
STALE_DAYS = 180


@dataclass(frozen=True)
class Price:
    """Dollars an hour of one device, with the instance it was derived from and the date of that price (`2026`,
    `2026-07` or `2026-07-16`)."""

    usd_h: float
    source: str
    as_of: str = ""
    market: Market = "on-demand"
    interruptions_per_h: float | None = None
    """How often the node it is of is taken back in an hour; spot only."""


class Catalog:
    """Immutable tables of device types (SI units, priced) and instance types."""

    def __init__(self, device_types: Mapping[str, DeviceType], instances: Mapping[str, InstanceType]) -> None:
        self.instances = dict(instances)
        self.device_types = {CPU: _generic_cpu(), **device_types}
        self._by_key = {normalise(name): name for name in self.device_types}
        for alias, name in ALIASES.items():
            if name in self.device_types:
                self._by_key.setdefault(alias, name)
        for name in self.device_types:
            for market in ("spot", "on-demand"):
                if (price := self.price(name, market=market)) is not None:
                    self.device_types[name] = priced(self.device_types[name], price)

    @classmethod
    def load(cls, extra: Path | None = None) -> Catalog:
        """The shipped tables, and over them the rows of `extra`: a CSV or YAML file, or a folder of them. A row of a
        known name replaces the fields it gives. Raises SpecError."""
        device_rows: dict[str, dict[str, Any]] = {}
        instance_rows: dict[str, dict[str, Any]] = {}
        for path in (SHIPPED / "devices.csv", SHIPPED / "instances.csv", *_files(extra)):
            devices, instances = read_tables(path)
            _merge(device_rows, devices, _device_key)
            _merge(instance_rows, instances, _instance_key)
        types = {name: _device_type(values) for name, values in device_rows.items()}
        return cls(types, {name: _instance_type(values) for name, values in instance_rows.items()})

    def find(self, name: str) -> DeviceType | None:
        """The device type of this name or alias, in any case; None where there is none."""
        canonical = self._by_key.get(normalise(name)) or self._by_key.get(name.strip().lower())
        return None if canonical is None else self.device_types[canonical]

    def device(self, name: str) -> DeviceType:
        """As `find`; raises SpecError, with the nearest name as hint, where there is none."""
        found = self.find(name)
        if found is None:
            near = self.nearest(name)
            hint = f"did you mean {near}?" if near else "your own types go in a catalog file"
            raise SpecError(Problem(f"unknown device type {name!r}", hint=hint))
        return found

    def nearest(self, name: str) -> str | None:
        """The known device type whose name or alias looks most like `name`."""
        match = difflib.get_close_matches(normalise(name), self._by_key, 1, cutoff=0.5)
        return self._by_key[match[0]] if match else None

    def instance(self, name: str) -> InstanceType:
        """The instance type of this name (`aws/g4dn.xlarge`, in any case). Raises SpecError."""
        for known, instance in self.instances.items():
            if known.lower() == name.strip().lower():
                return instance
        near = difflib.get_close_matches(name, self.instances, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "instances are named cloud/type, e.g. aws/g4dn.xlarge"
        raise SpecError(Problem(f"unknown instance type {name!r}", hint=hint))

    def price(self, device: str, instance: str | None = None, market: Market = "on-demand") -> Price | None:
        """The price of one device: that of the named instance, else what the device's own row says, else the cheapest
        of all instances that have it. For `cpu`, one vCPU of an instance without accelerators. None where nothing is
        known; a spot price is then not made up from the other. Raises SpecError."""
        found = self.find(device)
        if found is None:
            return None
        if instance is not None:
            price = _share(self.instance(instance), found.name, market)
        else:
            prices = (_share(each, found.name, market) for each in self.instances.values())
            cheapest = min(filter(None, prices), key=lambda price: price.usd_h, default=None)
            price = _own(found, market) or cheapest
        if price is None or market == "on-demand" or price.interruptions_per_h is not None:
            return price
        return replace(price, interruptions_per_h=found.interruptions_per_h)

    def interruptions_per_h(self, device: str, instance: str | None = None) -> float | None:
        """How often a spot node with this device is taken back in an hour: the named instance's, else the device's own.
        None where neither is known. Raises SpecError."""
        of_instance = None if instance is None else self.instance(instance).interruptions_per_h
        found = self.find(device)
        return of_instance if of_instance is not None or found is None else found.interruptions_per_h

    def stale(self, device: DeviceType, today: datetime.date, days: int = STALE_DAYS) -> str | None:
        """A sentence when the price of a device is older than `days` on `today`; None when it is not, or unknown."""
        priced_on = _last_day(device.price_as_of)
        if device.price_usd_h is None or priced_on is None or (today - priced_on).days <= days:
            return None
        return (
            f"the price of {device.name} ({device.price_usd_h:.3g} USD/h, {device.price_source}) is of "
            f"{device.price_as_of}, more than {days} days ago: give a newer one in your own catalog file"
        )


def priced(device: DeviceType, price: Price) -> DeviceType:
    """The device type at this price. A spot price is kept beside the one on demand, which it does not replace."""
    if price.market == "spot":
        return replace(device, spot_price_usd_h=price.usd_h, interruptions_per_h=price.interruptions_per_h)
    return replace(device, price_usd_h=price.usd_h, price_source=price.source, price_as_of=price.as_of)


def on_spot(device: DeviceType, price: Price | None) -> DeviceType:
    """The device type as it is on a spot node: at this price, unpriced where it is None."""
    if price is None:
        none = replace(device, price_usd_h=None, price_source="", price_as_of="")
        return replace(none, spot_price_usd_h=None, market="spot")
    at_price = replace(device, price_usd_h=price.usd_h, price_source=f"{price.source} spot", price_as_of=price.as_of)
    return replace(priced(at_price, price), market="spot")


def _own(device: DeviceType, market: Market) -> Price | None:
    """The price that a device's own row in the catalog gives."""
    if market == "spot":
        spot = device.spot_price_usd_h
        return None if spot is None else Price(spot, device.source, "", market, device.interruptions_per_h)
    usd_h = device.price_usd_h
    return None if usd_h is None else Price(usd_h, device.price_source, device.price_as_of)


def _share(instance: InstanceType, device: str, market: Market) -> Price | None:
    spot = market == "spot"
    total = instance.price_spot_usd_h if spot else instance.price_on_demand_usd_h
    if device == CPU:
        units = instance.vcpus if instance.device_count == 0 else None
    else:
        units = float(instance.device_count) if instance.device == device else None
    if total is None or not units:
        return None
    # The date of an instance's row is that of its price on demand; spot prices move by the hour.
    as_of, interruptions = ("", instance.interruptions_per_h) if spot else (instance.as_of, None)
    return Price(total / units, instance.name, as_of, market, interruptions)


def _last_day(as_of: str) -> datetime.date | None:
    """The last day that `2026`, `2026-07` or `2026-07-16` may mean."""
    try:
        year, month, day = ([int(part) for part in as_of.split("-")] + [0, 0])[:3]
        month = month or 12
        return datetime.date(year, month, day or calendar.monthrange(year, month)[1])
    except ValueError:
        return None


def _generic_cpu() -> DeviceType:
    return DeviceType(name=CPU, kind="cpu", source="one vCPU of a general machine; its rates are measured on the host")


def _files(extra: Path | None) -> Iterable[Path]:
    if extra is None:
        return []
    if extra.is_dir():
        return sorted(path for path in extra.iterdir() if path.suffix in (".csv", ".yaml", ".yml"))
    return [extra]


def _device_key(row: Row) -> str:
    return str(row.required("name"))


def _instance_key(row: Row) -> str:
    return f"{row.required('cloud')}/{row.required('instance_type')}"


def _merge(into: dict[str, dict[str, Any]], rows: Iterable[Row], key_of: Any) -> None:
    for row in rows:
        key = key_of(row)
        known = {name.lower(): name for name in into}
        key = known.get(key.lower(), key)
        values = {**into.get(key, {}), **row.values}
        into[key] = {**values, "name": key} if "name" in values else values
        _check(row, values)


def _check(row: Row, values: Mapping[str, Any]) -> None:
    """Raises SpecError where a merged row lacks what every row needs."""
    is_instance = "instance_type" in values
    for column in ("device", "device_count") if is_instance else ("kind",):
        if column not in values:
            row.required(column)
    if not is_instance and values["kind"] not in KINDS:
        raise SpecError(row.problem("kind", f"unknown kind {values['kind']!r}", f"one of {', '.join(KINDS)}"))
    if "as_of" in values and _last_day(values["as_of"]) is None:
        raise SpecError(row.problem("as_of", f"not a date: {values['as_of']!r}", "write 2026-07-16, 2026-07 or 2026"))


def _device_type(values: Mapping[str, Any]) -> DeviceType:
    price = values.get("price_usd_h")
    return DeviceType(
        name=values["name"],
        kind=values["kind"],
        vendor=values.get("vendor", ""),
        memory_bytes=values.get("memory_gb"),
        memory_bandwidth_bytes_s=values.get("memory_bandwidth_gb_s"),
        peak_flops={name: values[column] for name, column in PRECISIONS.items() if column in values},
        interconnect_bytes_s=values.get("interconnect_gb_s"),
        power_watts=values.get("power_watts"),
        price_usd_h=price,
        price_source="" if price is None else values.get("source", ""),
        price_as_of="" if price is None else values.get("as_of", ""),
        spot_price_usd_h=values.get("spot_price_usd_h"),
        interruptions_per_h=values.get("interruptions_per_h"),
        source=values.get("source", ""),
    )


def _instance_type(values: Mapping[str, Any]) -> InstanceType:
    return InstanceType(
        cloud=values["cloud"],
        instance_type=values["instance_type"],
        device=values["device"],
        device_count=int(values["device_count"]),
        region=values.get("region", ""),
        vcpus=values.get("vcpus"),
        memory_bytes=values.get("memory_gib"),
        network_bytes_s=values.get("network_gbit_s"),
        price_on_demand_usd_h=values.get("price_on_demand_usd_h"),
        price_spot_usd_h=values.get("price_spot_usd_h"),
        interruptions_per_h=values.get("interruptions_per_h"),
        source=values.get("source", ""),
        as_of=values.get("as_of", ""),
    )
