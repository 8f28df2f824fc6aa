"""What the scheduler knows of a cluster: device types, nodes, a snapshot, and the runs on it. All frozen, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workloads.job import Job

DEVICE_LABEL = "raywise.io/device"
NODE_TYPE_LABEL = "raywise.io/node-type"
EMULATED_SPEED_LABEL = "raywise.io/emulated-speed"
INSTANCE_LABEL = "raywise.io/instance"
"""The node's instance type, `/` and `+` written `_`: what it costs is looked up in the catalog."""
PRICE_LABEL = "raywise.io/price-usd-h"
"""Dollars an hour of one device of the node, where it is known better than the catalog knows."""
MARKET_LABEL = "raywise.io/market"
"""`spot` on a node that its cloud may take back; its devices then have the spot price."""
USD_PER_KWH_LABEL = "raywise.io/usd-per-kwh"
GCO2E_PER_KWH_LABEL = "raywise.io/gco2e-per-kwh"
ENERGY_OVERHEAD_LABEL = "raywise.io/energy-overhead"
STORAGE_PRICE_LABEL = "raywise.io/storage-usd-gb-month"
EGRESS_PRICE_LABEL = "raywise.io/egress-usd-gb"
"""What holds for the whole cluster (`EnergyRates`, `Tariff`): labels of its head."""
SEAT_RESOURCE = "raywise_seat"
"""Every rented node has one of it. Who asks for so many of a type's seats asks Ray for so many nodes of it, whatever
runs on those that are there."""
NO_DEADLINE_S = 4e9
"""When a node will be gone that is drained without a deadline (Unix seconds): in the year 2096."""
CPU = "cpu"

Market = Literal["on-demand", "spot"]


@dataclass(frozen=True)
class DeviceType:
    """A kind of hardware. None means not known, never zero."""

    name: str
    kind: str
    """`cpu`, `gpu`, `tpu`, `asic` or `fpga`."""
    vendor: str = ""
    memory_bytes: float | None = None
    host_memory_bytes: float | None = None
    """Of an emulated type: the memory of the machine that all its devices share."""
    memory_bandwidth_bytes_s: float | None = None
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    """Dense peak FLOP/s by precision: `fp32`, `tf32`, `fp16`, `bf16`, `fp8`, `int8`."""
    interconnect_bytes_s: float | None = None
    power_watts: float | None = None
    price_usd_h: float | None = None
    """Dollars an hour of one device on its `market`; None is unpriced."""
    price_source: str = ""
    price_as_of: str = ""
    market: Market = "on-demand"
    """What `price_usd_h` is, and whether the device may be taken away."""
    spot_price_usd_h: float | None = None
    """Dollars an hour of one device on spot, whatever its market here."""
    interruptions_per_h: float | None = None
    """How often a spot node of this type is taken back in an hour."""
    launch_s: float | None = None
    """Seconds to start one kernel, measured."""
    measured_flops: Mapping[str, float] = field(default_factory=dict)
    """FLOP/s of the largest matrix product measured, by precision; empty is not measured."""
    measured_bandwidth_bytes_s: float | None = None
    measured_link_bytes_s: float | None = None
    """Bus bandwidth of an all-reduce, measured."""
    emulated_speed: float | None = None
    """Set where the type is emulated: rates above are then the host core's times this fraction."""
    source: str = ""
    rates_at_s: float = 0.0
    """Unix seconds of the measurement of the rates above; 0 where they are given."""

    @property
    def emulated(self) -> bool:
        """Whether a host CPU stands in for this hardware."""
        return self.emulated_speed is not None

    @property
    def label(self) -> str:
        """The name as people see it; says so when the type is emulated."""
        return f"{self.name} (emulated)" if self.emulated else self.name


@dataclass(frozen=True)
class NodeDevices:
    """Devices of one type on one node. `resource` is Ray's name of it (`CPU`, `GPU` or the device type)."""

    device_type: str
    resource: str
    total: int
    free: int


@dataclass(frozen=True)
class Node:
    """One machine of the cluster."""

    node_id: str
    name: str
    node_type: str = ""
    is_head: bool = False
    devices: tuple[NodeDevices, ...] = ()
    memory_bytes: float = 0.0
    network_bytes_s: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    market: Market = "on-demand"
    leaves_s: float | None = None
    """Unix seconds when it will be gone: it was given notice, and nothing may begin on it. None: it stays."""

    def devices_of(self, device_type: str) -> NodeDevices | None:
        """This node's devices of a type, or None."""
        return next((devices for devices in self.devices if devices.device_type == device_type), None)


@dataclass(frozen=True)
class Launching:
    """What is on its way of a kind of node, and whether more may be asked for: as `NodeType` has it."""

    joins_s: tuple[float, ...] = ()
    unavailable_until_s: float | None = None
    why: str = ""
    launch_s: float | None = None
    """Seconds that the last ones took to join; None where none has yet."""


@dataclass(frozen=True)
class NodeType:
    """A kind of node that is rented by the hour and given back: what one of it has, costs and takes to join."""

    name: str
    devices: tuple[tuple[str, int], ...]
    """How many of each device type are on one."""
    price_usd_h: float
    """Dollars an hour of one whole node on its market, from its request on."""
    most: int
    """So many may be there at once, those on their way included."""
    least: int = 0
    """So many always are: Ray launches them by itself, and none of them is given back."""
    launch_s: float = 180.0
    """Seconds from a request until the node has joined."""
    market: Market = "on-demand"
    interruptions_per_h: float | None = None
    """How often one on spot is taken back in an hour; None is not known."""
    memory_bytes: float = 0.0
    joins_s: tuple[float, ...] = ()
    """When each that was requested and is not there yet should join."""
    unavailable_until_s: float | None = None
    """A launch failed lately: until then none is asked for. None: one may be asked for."""
    unavailable_why: str = ""
    """What became of that launch."""
    on_demand_usd_h: float | None = None
    """What one of it would cost on demand; None is not known."""

    @property
    def launching(self) -> int:
        """How many are on their way."""
        return len(self.joins_s)

    def node(self, node_id: str) -> Node:
        """One of it, with nothing running."""
        devices = tuple(NodeDevices(name, "CPU" if name == CPU else name, n, n) for name, n in self.devices)
        labels = {NODE_TYPE_LABEL: self.name, **({MARKET_LABEL: self.market} if self.market == "spot" else {})}
        memory = self.memory_bytes
        return Node(
            node_id, node_id, self.name, devices=devices, memory_bytes=memory, labels=labels, market=self.market
        )


@dataclass(frozen=True)
class EnergyRates:
    """What the cluster's electricity costs and emits. None is not known: then no dollars, or no emissions, are told."""

    usd_per_kwh: float | None = None
    gco2e_per_kwh: float | None = None
    """Grams of CO2 equivalent of one kWh where the machines stand."""
    overhead: float = 1.0
    """Energy of the whole site over that of its machines: power usage effectiveness (ISO/IEC 30134-2), 1 or more."""


@dataclass(frozen=True)
class Tariff:
    """What the cloud charges beside devices. None is not known: what it is charged for then has no price."""

    storage_usd_gb_month: float | None = 0.023
    """Keeping a GB for a month: S3 Standard's list price (us-east-1, first 50 TB)."""
    egress_usd_gb: float | None = 0.0
    """Moving a GB between nodes: AWS and GCP charge nothing within one zone by private address. Between zones AWS
    lists 0.01 in each direction (EC2's data-transfer price list, recalled)."""


@dataclass(frozen=True)
class Snapshot:
    """The cluster at one moment. `warnings` are sentences for the operator (an unknown GPU, a mixed label)."""

    at_s: float
    nodes: tuple[Node, ...]
    device_types: Mapping[str, DeviceType]
    warnings: tuple[str, ...] = ()
    energy: EnergyRates = EnergyRates()
    tariff: Tariff = Tariff()
    node_types: tuple[NodeType, ...] = ()
    """What may be rented and given back. A node whose `node_type` is one of these is a rented one."""
    rent_cap_usd_h: float | None = None
    """All rented nodes together may cost so many dollars an hour, those on their way included. None: no such limit."""
    rent_cap_usd_month: float | None = None
    """All rented nodes together may cost so many dollars in a month (UTC), boot and idle time included. None: no such
    limit."""

    def staying(self) -> Snapshot:
        """As it is for what begins now: nodes that will be gone have no devices any more."""
        if all(node.leaves_s is None for node in self.nodes):
            return self
        nodes = tuple(node if node.leaves_s is None else replace(node, devices=()) for node in self.nodes)
        return replace(self, nodes=nodes)

    def type_of(self, node: Node) -> NodeType | None:
        """The type that a rented node is of; None of a node that stays."""
        return None if node.is_head else next((each for each in self.node_types if each.name == node.node_type), None)

    def rented(self, node_type: str) -> tuple[Node, ...]:
        """The nodes of a type that have joined."""
        return tuple(node for node in self.nodes if node.node_type == node_type and not node.is_head)

    def rented_usd_h(self) -> float:
        """Dollars an hour of all rented nodes, those on their way included."""
        return sum(each.price_usd_h * (len(self.rented(each.name)) + each.launching) for each in self.node_types)

    def with_rentable(self) -> Snapshot:
        """As if all that may be rented were there: what a workload could ever have. Twice is the same as once."""
        more = tuple(
            each.node(f"rentable-{each.name}-{number}")
            for each in self.node_types
            for number in range(len(self.rented(each.name)), each.most)
        )
        return replace(self, nodes=self.nodes + more) if more else self

    def total(self, device_type: str) -> int:
        """Devices of a type, busy or free."""
        return sum(devices.total for node in self.nodes if (devices := node.devices_of(device_type)))

    def free(self, device_type: str) -> int:
        """Devices of a type that nothing holds."""
        return sum(devices.free for node in self.nodes if (devices := node.devices_of(device_type)))


RunState = Literal["starting", "running", "succeeded", "failed", "stopped", "lost"]
"""`lost`: the executor knows nothing of this run although it was started."""


@dataclass(frozen=True)
class RunRequest:
    """Start this job. `code_path` is a folder or zip of the user's own code to ship with it, or None. `driver_env`
    are the user's environment variables."""

    job: Job
    name: str
    code_path: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunObservation:
    """How a run stands. `message` says why it ended, where it did."""

    run_id: str
    state: RunState
    message: str = ""
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the run will not change any more."""
        return self.state in ("succeeded", "failed", "stopped", "lost")


ProgressRecord = Mapping[str, Any]
"""One record as `workloads.job` describes it."""
