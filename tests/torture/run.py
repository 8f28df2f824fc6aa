"""The torture itself: submit, kill, bring the service back, until enough was killed; then wait for the end of it all."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scheduler.client import Client, ClientError, NoService

from .load import Load
from .verdict import judge
from .victims import Victim, choose
from .world import Service

log = logging.getLogger("torture")

DEFINITION = """
head: {cpus: 3}
nodes:
  - {name: t4, device: T4, count: 2, emulated_speed: 0.5, instance: aws/g4dn.xlarge}
  - {name: a100, device: A100-SXM4-40GB, count: 1, emulated_speed: 1.0, instance: gcp/a2-highgpu-1g}
"""
LIVE = ("starting", "running", "stopping")
OUTSTANDING = 6
"""So many workloads wait or run at any time."""
END_PATIENCE_S = 1200.0
VICTIM_PATIENCE_S = 30.0
WHOLE_BEFORE = 0.85
"""Share of the kills that wait until the service answers again; the others may hit it while it comes back."""


class Torture:
    """One run on a home folder of its own."""

    def __init__(
        self,
        home: Path,
        rng: random.Random,
        trainings: bool = True,
        pause_s: float = 5.0,
        script: Sequence[str] = (),
    ) -> None:
        """`pause_s`: the longest pause between two kills. `script`: kinds to kill one after the other, where chance
        shall not choose them."""
        home.mkdir(parents=True)
        self.home, self.rng, self.trainings, self.pause_s = home.resolve(), rng, trainings, pause_s
        self.load = Load.make(self.home / "load")
        definition = self.home / "cluster.yaml"
        definition.write_text(DEFINITION)
        self.service = Service(self.home / "service", definition)
        self.accepted: list[str] = []
        self.kills: list[dict[str, Any]] = []
        self.doubtful = 0
        self._script = list(script)

    def run(self, kills: int, deadline: float) -> dict[str, Any]:
        """Kill so many times, or until `deadline` (of `time.monotonic`); the result as plain values."""
        began_s = time.time()
        try:
            self.service.start()
            self.service.wait()
            scripted = bool(self._script)
            while len(self.kills) < kills and time.monotonic() < deadline and (self._script or not scripted):
                self.service.tend()
                if self.rng.random() < WHOLE_BEFORE:
                    self.service.wait()
                self.submit()
                time.sleep(self.rng.uniform(0.3, self.pause_s))
                self.kill_one()
            self.wait_for_the_end()
        finally:
            log.info("%s", self.service.down().strip())
        verdict = judge(self.service.home, self.accepted, self.kills)
        return {
            "kills": len(self.kills),
            "kills_by_kind": dict(Counter(kill["kind"] for kill in self.kills)),
            "submissions_without_an_answer": self.doubtful,
            "seconds": round(time.time() - began_s),
            **verdict.to_json(),
            "broken": verdict.broken,
        }

    def submit(self) -> None:
        """Keep so many workloads going; nothing while the service is away."""
        workloads = self.service.list()
        if workloads is None:
            return
        going = sum(not workload["ended"] for workload in workloads)
        training = any(workload["kind"] == "train" and not workload["ended"] for workload in workloads)
        while going < OUTSTANDING:
            spec = self.load.next(self.rng, self.trainings and not training)
            try:
                with Client(home=self.service.home) as client:
                    answer = client.submit(spec)
            except NoService:  # it died over it: whether it took it is not known
                self.doubtful += 1
                return
            except ClientError as error:  # e.g. the cluster cannot be reached: refused, nothing is stored
                log.info("refused: %s", str(error).splitlines()[0])
                return
            self.accepted += [workload["id"] for workload in answer["workloads"]]
            going += len(answer["workloads"])
            training = training or spec["name"] == "tuning"

    def kill_one(self) -> None:
        """SIGKILL one process by chance."""
        victim = self._victim()
        if victim is None:
            return
        workloads = self.service.list() or []
        live = [workload["id"] for workload in workloads if workload["state"] in LIVE]
        at_s = time.time()
        with contextlib.suppress(ProcessLookupError):
            self._kill(victim)
            self.kills.append({"kind": victim.kind, "at_s": at_s, "workload": victim.workload_id, "live": live})
            (self.home / "kills.json").write_text(json.dumps(self.kills))
            log.info("%d: killed %s (%s)", len(self.kills), victim.kind, victim.title)

    def _victim(self) -> Victim | None:
        if not self._script:
            return choose(self.service.home, self.service.pid, self.rng)
        kind = self._script.pop(0)
        deadline = time.monotonic() + VICTIM_PATIENCE_S
        while time.monotonic() < deadline:
            found = choose(self.service.home, self.service.pid, self.rng, kind)
            if found is not None:
                return found
            time.sleep(0.2)
        return None

    def _kill(self, victim: Victim) -> None:
        if victim.kind == "service":
            self.service.kill()
        else:
            os.kill(victim.pid, signal.SIGKILL)

    def wait_for_the_end(self) -> None:
        """Until every workload has ended, or for so long."""
        deadline = time.monotonic() + END_PATIENCE_S
        while time.monotonic() < deadline:
            self.service.tend()
            workloads = self.service.list()
            if workloads is not None and all(workload["ended"] for workload in workloads):
                return
            time.sleep(1.0)
        log.error("not everything ended within %.0f s", END_PATIENCE_S)
