"""A cloud on this machine, for Ray's own autoscaler: `ray start` processes that are launched, take time to boot, may be
refused, and may be taken back with notice. Ray loads it by name (`provider: {type: external}`) in its monitor process.

What it launched is in files under `folder`, one for each instance, so that others can see it and a monitor that was
started again knows it. An instance ends with its process.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from .definition import HEAD
from .gcs import ControlService
from .launch import NodePlan, node_command, node_environment
from .local_autoscaling import HEAD_INSTANCE, INSTANCES, SCENARIO_FILE
from .processes import LAUNCH_MARKER, ProcessId, end_members
from .protocols import ClusterUnreachable
from .scenario import Script

log = logging.getLogger(__name__)

_LOOK_S = 0.25
_END_PATIENCE_S = 8.0
_ONE_START_S = 15.0
"""A node that has not joined after this no other waits for."""


@dataclass(frozen=True)
class Instance:
    """One machine that was launched."""

    instance_id: str
    node_type: str
    tags: Mapping[str, str]
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    launched_s: float
    boots_s: float | None
    """When Ray is started on it; None where it never is."""
    launch: str = field(default_factory=lambda: secrets.token_hex(4))
    """What all its processes carry in their environment."""
    process: ProcessId | None = None
    leaves_s: float | None = None
    """When it is taken back; None until that is said."""
    ended_s: float | None = None
    why: str = ""


class Instances:
    """The instances of one cluster, as files in a folder: any process may look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Instance]:
        """Every one that was ever launched, in that order."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            process = data.pop("process")
            found.append(Instance(**data, process=None if process is None else ProcessId(**process)))
        return sorted(found, key=lambda each: (each.launched_s, each.instance_id))

    def put(self, instance: Instance) -> None:
        """Write one down, as a whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{instance.instance_id}.part-{threading.get_ident()}"
        partial.write_text(json.dumps(asdict(instance)), encoding="utf-8")
        partial.replace(self.folder / f"{instance.instance_id}.json")


class LocalNodeProvider(NodeProvider):  # type: ignore[misc]
    """Launches nodes of a local cluster. Its configuration names the cluster's `folder`, `cluster_id`, `address`,
    `token_path` and `temp_dir`, and each type's `launch_s`."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._instances = Instances(Path(provider_config["folder"]) / INSTANCES)
        self._script = Script(Path(provider_config["folder"]) / SCENARIO_FILE)
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._known = {each.instance_id: each for each in self._instances.all() if each.ended_s is None}
        self._refused: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch, name="local cloud", daemon=True)
        self._thread.start()

    # What Ray asks

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Names of all instances that have these tags; the head's is among them."""
        with self._lock:
            names = [HEAD_INSTANCE, *self._known]
            return [name for name in names if tag_filters.items() <= self.node_tags(name).items()]

    def is_running(self, node_id: str) -> bool:
        """Whether Ray was started on it."""
        if node_id == HEAD_INSTANCE:
            return True
        with self._lock:
            return node_id in self._known and self._known[node_id].process is not None

    def is_terminated(self, node_id: str) -> bool:
        """Whether it is gone."""
        return node_id != HEAD_INSTANCE and node_id not in self._known

    def node_tags(self, node_id: str) -> dict[str, str]:
        """Ray's own notes of it."""
        if node_id == HEAD_INSTANCE:
            return {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: HEAD}
        with self._lock:
            instance = self._known.get(node_id)
            return {} if instance is None else dict(instance.tags)

    def external_ip(self, node_id: str) -> str:  # noqa: ARG002
        """All are on this machine."""
        return "127.0.0.1"

    def internal_ip(self, node_id: str) -> str:  # noqa: ARG002
        """All are on this machine."""
        return "127.0.0.1"

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        """Change Ray's notes."""
        with self._lock:
            instance = self._known.get(node_id)
            if instance is not None:
                self._put(replace(instance, tags={**instance.tags, **tags}))

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        """Launch so many of a type, or none. Raises NodeLaunchException where the scenario refuses them."""
        node_type = tags[TAG_RAY_USER_NODE_TYPE]
        behaviour = self._script.now().of(node_type)
        with self._lock:
            present = sum(each.node_type == node_type for each in self._known.values())
            refused = self._refused.get(node_type, 0)
            if behaviour.refuse is True or refused < behaviour.refuse:
                self._refused[node_type] = refused + 1
                raise NodeLaunchException("NoCapacity", f"no {node_type} is to be had now", None)
            if behaviour.capacity is not None and present + count > behaviour.capacity:
                why = f"only {behaviour.capacity} {node_type} can be had at once"
                raise NodeLaunchException("NoCapacity", why, None)
            boot_s = node_config.get("launch_s", 0.0) if behaviour.boot_s is None else behaviour.boot_s
            now_s = time.time()
            for _ in range(count):
                boots_s = None if behaviour.never_joins else now_s + boot_s
                name = f"{node_type}-{secrets.token_hex(4)}"
                given = {**resources, **behaviour.resources}
                self._put(Instance(name, node_type, dict(tags), given, dict(labels), now_s, boots_s))

    def terminate_node(self, node_id: str) -> None:
        """End one; returns at once."""
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: list[str]) -> None:
        """End these; returns at once. Their processes are gone a few seconds later."""
        for node_id in node_ids:
            with self._lock:
                instance = self._known.get(node_id)
            if instance is not None:
                self._end(instance, "given back")

    # What happens by itself

    def _watch(self) -> None:
        while True:
            try:
                self._look(time.time())
            except Exception:
                log.exception("the local cloud failed")
            time.sleep(_LOOK_S)

    def _look(self, now_s: float) -> None:
        """Boot what is due, take back what the scenario takes back, and notice what has died."""
        scenario = self._script.now()
        with self._lock:
            known = list(self._known.values())
        due = [each for each in known if each.process is None and each.boots_s is not None and now_s >= each.boots_s]
        if due and self._may_boot(known, now_s):
            self._boot(min(due, key=lambda each: each.boots_s or 0.0))
        for instance in known:
            behaviour = scenario.of(instance.node_type)
            if instance.process is None:
                continue
            child = self._children.get(instance.instance_id)
            if (child is not None and child.poll() is not None) or not instance.process.is_alive():
                self._end(instance, "its process ended")
            elif instance.leaves_s is not None:
                if now_s >= instance.leaves_s:
                    self._end(instance, "taken back")
            elif behaviour.interrupt_after_s is not None:
                leaves_s = instance.launched_s + behaviour.interrupt_after_s
                if now_s >= leaves_s - behaviour.notice_s:
                    self._give_notice(instance, max(leaves_s, now_s + behaviour.notice_s))

    def _may_boot(self, known: Sequence[Instance], now_s: float) -> bool:
        """One after the other: of several nodes that start at once on one machine, some never find the head."""
        last = max((each.process.started_s for each in known if each.process is not None), default=0.0)
        if now_s - last > _ONE_START_S:
            return True
        service = ControlService(self.provider_config["address"], Path(self.provider_config["token_path"]))
        try:
            there = {node.instance_id for node in service.nodes()}
        except ClusterUnreachable:
            return False
        finally:
            service.close()
        return all(each.instance_id in there for each in known if each.process is not None)

    def _boot(self, instance: Instance) -> None:
        resources = {name: amount for name, amount in instance.resources.items() if name not in ("CPU", "memory")}
        plan = NodePlan(
            instance.instance_id, int(instance.resources.get("CPU", 0)), 0, resources, dict(instance.labels)
        )
        config = self.provider_config
        temp_dir = Path(config["temp_dir"])
        environment = node_environment(config["cluster_id"], Path(config["token_path"]), temp_dir) | {
            LAUNCH_MARKER: instance.launch,
            "RAY_CLOUD_INSTANCE_ID": instance.instance_id,
            "RAY_NODE_TYPE_NAME": instance.node_type,
        }
        with open(temp_dir / f"{instance.instance_id}.log", "ab") as output:
            child = subprocess.Popen(
                node_command(plan, config["address"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=temp_dir,
                start_new_session=True,
            )
        with self._lock:
            if instance.instance_id in self._known:
                self._children[instance.instance_id] = child
                self._put(replace(self._known[instance.instance_id], process=ProcessId.of(child.pid)))
                return
        os.killpg(child.pid, signal.SIGKILL)  # it was given back meanwhile

    def _give_notice(self, instance: Instance, leaves_s: float) -> None:
        """Say that it will be taken back, the way a cloud's own watcher on the node would: Ray drains the node."""
        service = ControlService(self.provider_config["address"], Path(self.provider_config["token_path"]))
        try:
            for node in service.nodes():
                if node.instance_id == instance.instance_id:
                    service.drain(node.node_id, "the cloud takes it back", leaves_s)
                    self._put(replace(instance, leaves_s=leaves_s))
        except ClusterUnreachable as error:
            log.warning("no notice for %s: %s", instance.instance_id, error)
        finally:
            service.close()

    def _end(self, instance: Instance, why: str) -> None:
        with self._lock:
            if self._known.pop(instance.instance_id, None) is None:
                return
            self._instances.put(replace(instance, ended_s=time.time(), why=why))
            child = self._children.pop(instance.instance_id, None)
        if instance.process is not None:
            threading.Thread(target=_end_processes, args=(instance, child, why == "taken back"), daemon=True).start()

    def _put(self, instance: Instance) -> None:
        with self._lock:
            self._known[instance.instance_id] = instance
            self._instances.put(instance)


def _end_processes(instance: Instance, child: subprocess.Popen[bytes] | None, at_once: bool) -> None:
    """SIGTERM, then SIGKILL; a machine that is taken back is gone at once."""
    process = instance.process
    assert process is not None
    if not at_once:
        process.signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_PATIENCE_S
        while process.is_alive() and time.monotonic() < deadline:
            if child is not None:
                child.poll()
            time.sleep(0.1)
    end_members(instance.launch, [process], variable=LAUNCH_MARKER)
    if child is not None:
        child.wait()
