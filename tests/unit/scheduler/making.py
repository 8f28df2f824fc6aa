"""Short ways to write down clusters, estimates and situations in tests."""

from __future__ import annotations

from typing import Any

from cluster.types import DeviceType, Node, NodeDevices, Snapshot
from scheduler.estimate.profile import Cost, ModelProfile, Volume
from scheduler.estimate.work import Work
from scheduler.types import Configuration, Estimate, Money, Placement, Situation, WorkloadView

CPU = DeviceType("cpu", "cpu", memory_bytes=64e9, peak_flops={"fp32": 50e9}, price_usd_h=0.05)
T4 = DeviceType(
    "T4",
    "gpu",
    memory_bytes=16e9,
    memory_bandwidth_bytes_s=300e9,
    peak_flops={"fp32": 8e12, "fp16": 64e12},
    interconnect_bytes_s=32e9,
    price_usd_h=0.5,
)
A100 = DeviceType(
    "A100",
    "gpu",
    memory_bytes=40e9,
    memory_bandwidth_bytes_s=1.5e12,
    peak_flops={"fp32": 20e12, "bf16": 300e12},
    interconnect_bytes_s=600e9,
    price_usd_h=4.0,
)
UNPRICED = DeviceType("FPGA", "fpga", memory_bytes=8e9, peak_flops={"fp32": 1e12})
TPU = DeviceType("TPU-v4", "tpu", memory_bytes=32e9, peak_flops={"bf16": 275e12}, price_usd_h=3.2)
NO_RATES = DeviceType("Z9", "gpu", price_usd_h=1.0)
TYPES = {kind.name: kind for kind in (CPU, T4, A100, UNPRICED, TPU, NO_RATES)}


def products(flops_per_token: float) -> dict[str, Cost]:
    """A pass of nothing but matrix products of this many FLOPs a token."""
    return {"matmul": Cost(flops=Volume(per_sample=(0.0, flops_per_token, 0.0)))}


PROFILE = ModelProfile(
    "bert-2x32",
    1_000_000,
    1_000_000,
    forward=products(2e6),  # type: ignore[arg-type]
    backward=products(4e6),  # type: ignore[arg-type]
    activation_bytes=Volume(per_sample=(0.0, 1000.0, 10.0)),
)
"""1 M parameters, 2 MFLOP a token forward and 4 backward, 1000 L + 10 L^2 bytes of activations."""


def node(name: str, *devices: tuple[str, int] | tuple[str, int, int], network: float | None = None) -> Node:
    """A node of `(type, total)` or `(type, total, free)`."""
    held = tuple(
        NodeDevices(each[0], {"cpu": "CPU"}.get(each[0], each[0]), each[1], each[2] if len(each) > 2 else each[1])  # type: ignore[misc]
        for each in devices
    )
    return Node(name, name, devices=held, network_bytes_s=network)


def snapshot(*nodes: Node, at_s: float = 0.0) -> Snapshot:
    """The snapshot of these nodes, with the device types they carry."""
    names = {devices.device_type for each in nodes for devices in each.devices}
    return Snapshot(at_s, nodes, {name: TYPES[name] for name in sorted(names)})


def standard() -> Snapshot:
    """A head of 4 cores, two nodes of two T4, one of an A100."""
    return snapshot(
        node("head", ("cpu", 4)), node("t4-a", ("T4", 2)), node("t4-b", ("T4", 2)), node("a100", ("A100", 1))
    )


def configuration(**counts: int) -> Configuration:
    """`configuration(T4=2)`."""
    return Configuration.of(counts)


def est(seconds: float | None, price_usd_h: float | None = None, **counts: int) -> Estimate:
    """An estimate of the configuration `counts`, priced by its device types unless a price is given."""
    wanted = configuration(**counts)
    price = (
        sum(n * (TYPES[name].price_usd_h or 0.0) for name, n in wanted.groups) if price_usd_h is None else price_usd_h
    )
    money = None if seconds is None else Money(seconds / 3600 * price)
    return Estimate(wanted, seconds, low_s=seconds, high_s=seconds, money=money, price_usd_h=price, source="roofline")


def placed(*devices: tuple[str, str]) -> Placement:
    """A placement of `(type, node)` pairs."""
    counts: dict[str, int] = {}
    for name, _ in devices:
        counts[name] = counts.get(name, 0) + 1
    return Placement(Configuration.of(counts), devices)


def view(name: str, *estimates: Estimate, **fields: Any) -> WorkloadView:
    """A workload as a policy sees it."""
    return WorkloadView(name, name, estimates=estimates, **fields)


def situation(where: Snapshot, *views: WorkloadView, now_s: float = 0.0, **fields: Any) -> Situation:
    """What a policy is asked."""
    return Situation(1, now_s, 0, where, views, **fields)


def inference(samples: float = 1000.0, tokens: float = 50.0, **fields: Any) -> Work:
    """Batch inference with the profile above."""
    fields = {"family": PROFILE.family, "batch_size": 10, "profile": PROFILE} | fields
    return Work("batch-infer", samples=samples, tokens_per_sample=tokens, **fields)


def training(samples: float = 1000.0, tokens: float = 50.0, **fields: Any) -> Work:
    """Training with the profile above."""
    fields = {"family": PROFILE.family, "batch_size": 10, "profile": PROFILE} | fields
    return Work("train", samples=samples, tokens_per_sample=tokens, **fields)
