"""A Ray cluster on this machine: a head and nodes as child processes, started, found again and stopped as one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from workloads.errors import RaywiseError

from .catalog import Catalog
from .definition import HEAD, ClusterDefinition, node_labels
from .gcs import ControlService
from .launch import (
    TEMP_FOLDER,
    NodePlan,
    client_environment,
    free_ports,
    head_command,
    node_command,
    node_environment,
    nvidia_gpus,
)
from .local_autoscaling import AUTOSCALING_FILE, HEAD_ENVIRONMENT, IDLE_S, INSTANCES, SCENARIO_FILE, autoscaling_config
from .offers import device_amounts, rented_labels
from .processes import LAUNCH_MARKER, ProcessId, end_members, members, wait_ended
from .protocols import ClusterUnreachable
from .scenario import Scenario

STATE_FILE = "cluster.json"
LAUNCH_LABEL = "raywise.io/launch"
"""Tells one start of a node from the next."""
NODE_START_TIMEOUT_S = 180.0
"""Of one whose process lives: on a machine where much else runs, a head takes minutes."""
STOP_PATIENCE_S = 6.0
ANSWER_PATIENCE_S = 30.0
"""A head whose process runs may be busy: it is not given up before this."""
ATTEMPTS = 2
_POLL_S = 0.1
_LOG_TAIL_LINES = 15


class ClusterStartError(RaywiseError):
    """A local cluster could not be started; what had been started is gone again. The message ends with Ray's words."""


@dataclass(frozen=True)
class NodeProcess:
    """The process that runs one node in the foreground; it leads its own process group."""

    name: str
    process: ProcessId
    launch: str = ""
    """What all its processes carry in their environment, wherever they were re-parented to."""


@dataclass
class LocalCluster:
    """A cluster that `start` started, in this process or another. Its state is `folder/cluster.json`."""

    folder: Path
    cluster_id: str
    address: str
    """`host:port` of the control service."""
    dashboard_url: str
    token_path: Path
    temp_dir: Path
    nodes: list[NodeProcess]
    plans: list[NodePlan] = field(default_factory=list)
    """What it consists of, the head first: what `mend` brings back. Empty where an older Raywise started it."""
    rents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The kinds of nodes that Ray's autoscaler may launch, as `autoscaling_config` takes them; empty where none is."""
    idle_s: float = IDLE_S
    """What was idle for so long Ray gives back by itself."""
    abandoned: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set: a start that is under way gives up at once."""

    @classmethod
    def start(
        cls,
        definition: ClusterDefinition,
        folder: Path,
        *,
        catalog: Catalog | None = None,
        gpus: tuple[str, ...] | None = None,
        timeout_s: float = NODE_START_TIMEOUT_S,
        on_progress: Callable[[str], None] = lambda _: None,
        scenario: Path | None = None,
        more_resources: Mapping[str, Mapping[str, float]] | None = None,
        idle_s: float = IDLE_S,
    ) -> LocalCluster:
        """Start the head and then each node, one after the other; returns when all answer. A cluster that this folder
        still holds is stopped first. `gpus` are the machine's real GPUs (found where not given). `timeout_s` is the
        patience for each node. What the definition may rent Ray's own autoscaler launches, as `scenario` has it (a file
        that is copied); by type they have `more_resources`. Raises ClusterStartError, and SpecError for a scenario that
        is none."""
        previous = cls.open(folder)
        if previous is not None:
            previous.stop()
        definition = definition.with_real_gpus(nvidia_gpus() if gpus is None else gpus)
        rents = _rents(definition)
        for name, amounts in (more_resources or {}).items():
            rents[name]["resources"] |= amounts
        cluster = cls._prepare(folder, _plans(definition, catalog or Catalog.load()), rents, scenario)
        cluster.idle_s = idle_s
        try:
            for plan in cluster.plans:
                on_progress(f"starting node {plan.name}")
                cluster._start_node(plan, timeout_s)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def open(cls, folder: Path) -> LocalCluster | None:
        """The cluster that was started with this folder, alive or not; None where there is none."""
        try:
            data = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            return cls(
                folder=folder,
                cluster_id=data["cluster_id"],
                address=data["address"],
                dashboard_url=data["dashboard_url"],
                token_path=Path(data["token_path"]),
                temp_dir=Path(data["temp_dir"]),
                nodes=[NodeProcess(**{**node, "process": ProcessId(**node["process"])}) for node in data["nodes"]],
                plans=[NodePlan(**plan) for plan in data.get("plans", ())],
                rents=data.get("rents", {}),
                idle_s=data.get("idle_s", IDLE_S),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise RaywiseError(
                f"{folder / STATE_FILE} is damaged ({error}); end its Ray processes and delete it"
            ) from error

    def is_alive(self, patience_s: float = 0.0) -> bool:
        """Whether the head's process runs and its control service answers, within so many seconds."""
        deadline = time.monotonic() + patience_s
        while self.nodes and self.nodes[0].process.is_alive():
            if self._launched():
                return True
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        return False

    def missing(self) -> list[str]:
        """Names of its nodes whose process has ended, or was never started, the head first."""
        _reap([node.process for node in self.nodes])
        alive = {node.name for node in self.nodes if node.process.is_alive()}
        return [plan.name for plan in self.plans if plan.name not in alive]

    def mend(self, name: str, timeout_s: float = NODE_START_TIMEOUT_S) -> None:
        """Start a node that is missing again. With the head everything is started anew, at the same address and with
        the same token, after the last process of the old cluster is gone: nothing can then run twice. Raises
        ClusterStartError; the node is missing then, and may be mended again."""
        if name != HEAD:
            for node in [each for each in self.nodes if each.name == name]:
                self._drop(node)
            self._start_node(next(plan for plan in self.plans if plan.name == name), timeout_s)
            return
        self._end_processes(0.0)
        self.nodes.clear()
        self._save()
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        (self.temp_dir / TEMP_FOLDER).mkdir(parents=True, mode=0o700)
        for plan in self.plans:
            self._start_node(plan, timeout_s, stays=True)

    def environment(self) -> dict[str, str]:
        """Environment variables that Ray's clients need to be let in."""
        return client_environment(self.token_path)

    def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        """End every process of the cluster and remove its temporary folder; may be repeated. SIGTERM to the nodes in
        reverse order (each ends its own processes then), SIGKILL to what is left after `patience_s`. Raises
        RaywiseError where a process stays."""
        self._end_processes(patience_s)
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        self.token_path.unlink(missing_ok=True)
        (self.folder / STATE_FILE).unlink(missing_ok=True)

    def _end_processes(self, patience_s: float) -> None:
        roots = [node.process for node in self.nodes]
        everyone = members(self.cluster_id, roots)
        for node in reversed(self.nodes):
            node.process.signal(signal.SIGTERM)
        wait_ended(everyone, patience_s)
        left = end_members(self.cluster_id, roots)
        _reap(roots)
        if left:
            raise RaywiseError(
                f"cannot end processes {sorted(each.pid for each in left)} of the cluster in {self.folder}"
            )

    def node_processes(self, name: str) -> set[ProcessId]:
        """The processes of one node, by its name in the definition (the head is `head`)."""
        return {each for node in self.nodes if node.name == name for each in members("", [node.process])}

    @property
    def logs_dir(self) -> Path:
        """Where Ray writes what it and its jobs print, on all nodes."""
        return self.temp_dir / "ray" / "session_latest" / "logs"

    @property
    def scenario(self) -> Path:
        """The script by which rented nodes behave; it may be changed at any time."""
        return self.folder / SCENARIO_FILE

    @classmethod
    def _prepare(
        cls, folder: Path, plans: list[NodePlan], rents: dict[str, dict[str, Any]], scenario: Path | None
    ) -> LocalCluster:
        folder.mkdir(parents=True, exist_ok=True)
        if scenario is not None:
            Scenario.load(scenario).check(rents, scenario)
        shutil.rmtree(folder / INSTANCES, ignore_errors=True)
        (folder / SCENARIO_FILE).unlink(missing_ok=True)
        if scenario is not None:
            shutil.copyfile(scenario, folder / SCENARIO_FILE)
        # Not under `folder`: Ray puts Unix sockets there, whose paths must stay shorter than 107 characters.
        temp_dir = Path(tempfile.mkdtemp(prefix="raywise-", dir="/tmp"))
        port, dashboard_port = free_ports(2)
        (temp_dir / TEMP_FOLDER).mkdir()
        cluster = cls(
            folder=folder.resolve(),
            cluster_id=secrets.token_hex(8),
            address=f"127.0.0.1:{port}",
            dashboard_url=f"http://127.0.0.1:{dashboard_port}",
            token_path=folder.resolve() / "ray-token",
            temp_dir=temp_dir,
            nodes=[],
            plans=plans,
            rents=rents,
        )
        _write_private(cluster.token_path, secrets.token_hex(32))
        cluster._save()
        return cluster

    def _start_node(self, plan: NodePlan, timeout_s: float, *, stays: bool = False) -> None:
        """Start one node and wait until it is in the cluster; a second try where the first fails, of the head at other
        ports unless it `stays`."""
        for attempt in range(1, ATTEMPTS + 1):
            log = self.temp_dir / f"{plan.name}.log"
            launch = secrets.token_hex(4)
            labelled = replace(plan, labels={**plan.labels, LAUNCH_LABEL: launch})
            node = NodeProcess(plan.name, self._spawn(labelled, log, launch), launch)
            self.nodes.append(node)
            self._save()
            try:
                self._wait_for(node, plan, launch, timeout_s)
            except TimeoutError as error:
                self._drop(node)
                if attempt == ATTEMPTS or self.abandoned.is_set() or not self._has_head(plan):
                    raise ClusterStartError(f"node {plan.name} did not start: {error}\n{_tail(log)}") from error
                if plan.is_head and not stays:
                    self._move()
            else:
                return

    def _spawn(self, plan: NodePlan, log: Path, launch: str) -> ProcessId:
        environment = node_environment(self.cluster_id, self.token_path, self.temp_dir) | {LAUNCH_MARKER: launch}
        if plan.is_head:
            port, dashboard_port = (int(each.rpartition(":")[2]) for each in (self.address, self.dashboard_url))
            autoscaling = self._tell_autoscaler() if self.rents else None
            command = head_command(plan, port, dashboard_port, self.temp_dir / "ray", autoscaling)
            environment |= HEAD_ENVIRONMENT if self.rents else {}
        else:
            command = node_command(plan, self.address)
        with open(log, "ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.temp_dir,
                start_new_session=True,
            )
        _CHILDREN[child.pid] = child
        return ProcessId.of(child.pid)

    def _tell_autoscaler(self) -> Path:
        """Write what Ray's autoscaler is to know of this cluster."""
        provider = {
            "folder": str(self.folder),
            "cluster_id": self.cluster_id,
            "address": self.address,
            "token_path": str(self.token_path),
            "temp_dir": str(self.temp_dir),
        }
        path = self.folder / AUTOSCALING_FILE
        path.write_text(
            yaml.safe_dump(autoscaling_config(self.rents, provider, self.idle_s), sort_keys=False), encoding="utf-8"
        )
        return path

    def _wait_for(self, node: NodeProcess, plan: NodePlan, launch: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            _reap([node.process])
            if not node.process.is_alive():
                raise TimeoutError("its process ended")
            if self.abandoned.is_set():
                raise TimeoutError("it is not wanted any more")
            if not self._has_head(plan):  # who mends it waits for this
                raise TimeoutError("the head has ended")
            if launch in self._launched() and self._dashboard_answers():
                return
            time.sleep(_POLL_S)
        raise TimeoutError(f"it was not there after {timeout_s:.0f} s")

    def _has_head(self, plan: NodePlan) -> bool:
        """Whether there is a head for this node to join; it is its own where it is the head."""
        if plan.is_head:
            return True
        _reap([node.process for node in self.nodes])
        return any(node.name == HEAD and node.process.is_alive() for node in self.nodes)

    def _launched(self) -> set[str | None]:
        """Launch labels of the living nodes; empty where the control service does not answer."""
        service = ControlService(self.address, self.token_path, deadline_s=2.0)
        try:
            return {node.labels.get(LAUNCH_LABEL) for node in service.nodes()}
        except ClusterUnreachable:
            return set()
        finally:
            service.close()

    def _dashboard_answers(self) -> bool:
        import httpx

        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.dashboard_url}/api/version", timeout=2.0, trust_env=False).status_code < 500
        return False

    def _drop(self, node: NodeProcess) -> None:
        """End what is left of one node."""
        end_members(node.launch or "none", [node.process], variable=LAUNCH_MARKER)
        _reap([node.process])
        self.nodes.remove(node)

    def _move(self) -> None:
        """Other ports and a clean folder for a second try of the head."""
        port, dashboard_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        shutil.rmtree(self.temp_dir / "ray", ignore_errors=True)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "cluster_id": self.cluster_id,
            "address": self.address,
            "dashboard_url": self.dashboard_url,
            "token_path": str(self.token_path),
            "temp_dir": str(self.temp_dir),
            "nodes": [asdict(node) for node in self.nodes],
            "plans": [asdict(plan) for plan in self.plans],
            "rents": self.rents,
            "idle_s": self.idle_s,
        }
        partial = self.folder / f"{STATE_FILE}.part"
        partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.folder / STATE_FILE)


# Children of this process, so that an ended one is reaped and does not stay as a zombie.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def _reap(processes: list[ProcessId]) -> None:
    for process in processes:
        child = _CHILDREN.get(process.pid)
        if child is not None and child.poll() is not None:
            del _CHILDREN[process.pid]


def _plans(definition: ClusterDefinition, catalog: Catalog) -> list[NodePlan]:
    head = NodePlan(HEAD, definition.cpus, len(definition.gpu_names), {}, definition.head_labels(catalog), is_head=True)
    nodes = [
        NodePlan(node.name, 0, 0, {node.device: float(node.count)}, node_labels(node)) for node in definition.nodes
    ]
    return [head, *nodes]


def _rents(definition: ClusterDefinition) -> dict[str, dict[str, Any]]:
    """What Ray's autoscaler may launch of a definition."""
    return {
        node.name: {
            "resources": device_amounts(node),
            "labels": rented_labels(node),
            "min_workers": node.rent.least,
            "max_workers": node.rent.most,
            "launch_s": node.rent.launch_s,
        }
        for node in definition.rentable
        if node.rent is not None
    }


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_TAIL_LINES:])
