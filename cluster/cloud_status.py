"""What the tools of a rented cluster print of its nodes, as counts by kind: `ray status`, and `kubectl get -o json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .definition import HEAD

HEAD_GROUP = "headgroup"
"""KubeRay's name of the head's group."""
_THERE = re.compile(r"^ (\d+) (\S+)$")
_LAUNCHING = re.compile(r"^ (\S+), (\d+) launching$")
_STARTING = re.compile(r"^ \S+: (\S+), ")


@dataclass(frozen=True)
class NodeCounts:
    """Nodes by kind: those that are there, and those on their way, which are paid for too. `remarks` are the tool's."""

    there: Mapping[str, int] = field(default_factory=dict)
    coming: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def all(self) -> dict[str, int]:
        """Both together."""
        return dict(Counter(self.there) + Counter(self.coming))


def counts_of_ray_status(text: str) -> NodeCounts | None:
    """What `ray status` says under "Node status"; None where it says no such thing. Several machines of a kind that Ray
    has asked for at once are told as one, until the cloud has given them."""
    lines = [line.rstrip() for line in text.replace("\r", "").splitlines()]
    if "Node status" not in lines:
        return None
    there: Counter[str] = Counter()
    coming: Counter[str] = Counter()
    failures: list[str] = []
    part = ""
    for line in lines[lines.index("Node status") + 1 :]:
        if line == "Resources":
            break
        if line and not line.startswith((" ", "-")):
            part = line
        elif part in ("Active:", "Idle:") and (found := _THERE.match(line)):
            there[found[2]] += int(found[1])
        elif part == "Pending:" and (found := _LAUNCHING.match(line)):
            coming[found[1]] += int(found[2])
        elif part == "Pending:" and (found := _STARTING.match(line)):
            coming[found[1]] += 1
        elif part == "Recent failures:" and line.strip() and not line.startswith(" ("):
            failures.append(line.strip())
    return NodeCounts(dict(there), dict(coming), tuple(failures))


def counts_of_kuberay(cluster: Mapping[str, Any], pods: Mapping[str, Any]) -> NodeCounts:
    """What a RayCluster and its pods are: those that run are there, those that wait are on their way."""
    there: Counter[str] = Counter()
    coming: Counter[str] = Counter()
    for pod in pods.get("items", []):
        group = pod["metadata"].get("labels", {}).get("ray.io/group", "")
        phase = pod.get("status", {}).get("phase", "")
        if phase in ("Running", "Pending"):
            (there if phase == "Running" else coming)[HEAD if group == HEAD_GROUP else group] += 1
    status = cluster.get("status", {})
    remarks = [f"RayCluster is {status['state']}"] if status.get("state", "ready") != "ready" else []
    remarks += [str(status["reason"])] if status.get("reason") else []
    return NodeCounts(dict(there), dict(coming), tuple(remarks))
