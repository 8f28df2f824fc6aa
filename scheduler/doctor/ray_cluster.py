"""Judges a Ray cluster by what it answered. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cluster.inventory import ACCELERATOR_LABEL
from cluster.probe import ClusterProbe, NodeHealth
from cluster.types import DEVICE_LABEL

from .facts import PriceFacts
from .findings import Finding, by_limit, fail, ok, short, warn

REPORT_LAG_S = 30.0
"""A node's report may be so old."""


def judge_cluster(probe: ClusterProbe, installed: str | None, *, local: bool) -> list[Finding]:
    """Whether it can be reached, and is well. `installed` is the version of Ray here; of a `local` cluster all nodes
    run on this machine."""
    found = [control(probe), *dashboard(probe, installed)]
    if probe.control_error is None:
        found += [nodes(probe), labels(probe)]
    if probe.dashboard_error is None:
        found += [authentication(probe, local=local), clocks(probe), *pressure(probe), *gpus(probe)]
    return found


def control(probe: ClusterProbe) -> Finding:
    """The control service."""
    if probe.control_error is None:
        return ok("cluster", f"the control service at {probe.address} answers")
    do = "start the cluster, or see to the address, the token and the network; workloads wait until it is back"
    return fail("cluster", probe.control_error, do)


def dashboard(probe: ClusterProbe, installed: str | None) -> list[Finding]:
    """The dashboard, its version, and the Jobs API behind it."""
    if probe.dashboard_error is not None:
        do = "see to `dashboard_url`, the token, and that the head runs with its dashboard (ray[default])"
        return [fail("dashboard", f"{probe.dashboard_url}: {probe.dashboard_error}", do)]
    found = [ok("dashboard", f"{probe.dashboard_url} answers")]
    if probe.jobs_error is not None:
        found.append(fail("jobs api", probe.jobs_error, "see the head's dashboard.log; nothing can be started"))
    else:
        found.append(ok("jobs api", "answers"))
    if probe.ray_version != installed:
        do = "install the same version on both sides"
        found.append(fail("ray versions", f"the cluster has {probe.ray_version}, this machine {installed}", do))
    else:
        found.append(ok("ray versions", f"{installed} on both sides"))
    return found


def nodes(probe: ClusterProbe) -> Finding:
    """Nodes that live, and that died not long ago."""
    dead = [each.hostname or each.node_id[:8] for each in probe.health if not each.alive]
    found = f"{len(probe.nodes)} alive"
    if not probe.nodes:
        return fail("nodes", "none is alive", "see the head's log")
    if dead:
        return warn("nodes", f"{found}, {len(dead)} dead: {short(dead)}", "see why they left, if they should not have")
    return ok("nodes", found)


def labels(probe: ClusterProbe) -> Finding:
    """Whether every node with devices says what they are."""
    silent = [
        node.name
        for node in probe.nodes
        if node.total.get("GPU") and not (node.labels.get(DEVICE_LABEL) or node.labels.get(ACCELERATOR_LABEL))
    ]
    if silent:
        do = f"start them with --labels={DEVICE_LABEL}=<type>: without it their GPUs have no rates and no price"
        return warn("labels", f"no {DEVICE_LABEL} on {short(silent)}", do)
    kinds = sorted({node.labels[DEVICE_LABEL] for node in probe.nodes if DEVICE_LABEL in node.labels})
    return ok("labels", f"devices: {', '.join(kinds)}" if kinds else "no node has accelerators")


def authentication(probe: ClusterProbe, *, local: bool) -> Finding:
    """Whether Ray asks for a token."""
    if not probe.open_to_all:
        return ok("ray token", "is asked for")
    do = "start Ray with RAY_AUTH_MODE=token: whoever reaches its ports can run code on every node"
    return (warn if local else fail)("ray token", "the dashboard answers without one", do)


def clocks(probe: ClusterProbe) -> Finding:
    """How far the clocks are apart: deadlines, costs and progress are told in the time of whoever writes them."""
    off = {"the head": abs(probe.head_ahead_s)} if probe.head_ahead_s is not None else {}
    for node in probe.health:
        if node.alive and node.ahead_s is not None:
            # Behind may only be an old report.
            off[node.hostname] = max(off.get(node.hostname, 0.0), node.ahead_s, -node.ahead_s - REPORT_LAG_S)
    if not off:
        return ok("clocks", "nobody says")
    name = max(off, key=lambda each: off[each])
    found = f"at most {off[name]:.1f} s apart" if off[name] < 5 else f"{name} is {off[name]:.0f} s off"
    return by_limit("clocks", found, off[name], warn_at=5, fail_at=60, do="let NTP (chrony) run on every node")


def pressure(probe: ClusterProbe) -> list[Finding]:
    """Memory and disks of the nodes."""
    alive = [each for each in probe.health if each.alive]
    found = []
    fullest = max((each for each in alive if each.memory_used is not None), key=_memory, default=None)
    if fullest is not None:
        said = f"{_memory(fullest):.0%} in use on {fullest.hostname}, the fullest node"
        do = "Ray kills workers at 95%: give workloads less, or nodes more"
        found.append(by_limit("node memory", said, _memory(fullest), warn_at=0.85, fail_at=0.95, do=do))
    disks = [(used, mount, each.hostname) for each in alive for mount, used in (each.disk_used or {}).items()]
    if disks:
        used, mount, name = max(disks)
        do = "free some: Ray spills no objects to a disk that is 95% full"
        found.append(
            by_limit("node disks", f"{used:.0%} of {mount} in use on {name}", used, warn_at=0.9, fail_at=0.95, do=do)
        )
    return found


def _memory(node: NodeHealth) -> float:
    return node.memory_used or 0.0


def gpus(probe: ClusterProbe) -> Sequence[Finding]:
    """Whether Ray has the GPUs that the drivers show, machine by machine."""
    seen: dict[str, int] = defaultdict(int)
    given: dict[str, float] = defaultdict(float)
    total = {node.node_id: node.total.get("GPU", 0.0) for node in probe.nodes}
    for each in (node for node in probe.health if node.alive):
        seen[each.hostname] = max(seen[each.hostname], each.gpus)  # several nodes of one machine see the same ones
        given[each.hostname] += total.get(each.node_id, 0.0)
    wrong = [
        f"{name}: {seen[name]} by its driver, {given[name]:g} in Ray" for name in seen if seen[name] != given[name]
    ]
    if wrong:
        do = "restart the node with --num-gpus as many as there are, or repair its driver"
        return [warn("gpus", short(wrong), do)]
    count = sum(seen.values())
    return [ok("gpus", f"{count}, all of them Ray's" if count else "none in the cluster")]


def judge_prices(facts: PriceFacts) -> list[Finding]:
    """What the catalog and the inventory have to say."""
    found = [warn("prices", sentence, "give newer ones with `catalog`") for sentence in facts.stale]
    found += [warn("inventory", sentence, "see docs/cluster.md") for sentence in facts.warnings]
    return found or [ok("prices", "none is old")]
