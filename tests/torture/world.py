"""A service with a cluster of its own in a home folder, that is started again whenever it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.client import Client, ClientError, NoService

RAYWISE = str(Path(sys.executable).with_name("raywise"))
START_PATIENCE_S = 900.0


@dataclass
class Service:
    """The service's process, as an init system would run it."""

    home: Path
    definition: Path
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it; does not wait."""
        environment = {**os.environ, "RAYWISE_KEEP_CLUSTER": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [RAYWISE, "up", "--home", str(self.home), "--cluster", str(self.definition)]
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home / "service.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.starts.append(time.time())

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def tend(self) -> bool:
        """Start it again where it has ended; says whether it had."""
        if self.process is not None and self.process.poll() is None:
            return False
        self.start()
        return True

    def answers(self) -> bool:
        """Whether this very process serves its API."""
        try:
            if json.loads((self.home / "service.json").read_text())["pid"] != self.pid:
                return False
            with Client(home=self.home) as client:
                return client.healthy()
        except (OSError, ValueError, KeyError, ClientError):
            return False

    def wait(self, patience_s: float = START_PATIENCE_S) -> None:
        """Until it answers; it is started again as often as it dies. Raises TimeoutError."""
        deadline = time.monotonic() + patience_s
        while not self.answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service does not answer; see {self.home / 'service.log'}")
            self.tend()
            time.sleep(0.2)

    def list(self) -> list[dict[str, Any]] | None:
        """All workloads; None where nobody answers."""
        try:
            with Client(home=self.home) as client:
                return [dict(each) for each in client.workloads()]
        except NoService:
            return None
        except ClientError as error:
            if error.status >= 500:  # it comes up, or goes
                return None
            raise

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def down(self) -> str:
        """`raywise down`: service and cluster; what it said."""
        down = [RAYWISE, "down", "--home", str(self.home)]
        done = subprocess.run(down, capture_output=True, text=True, check=False)
        if self.process is not None and self.process.poll() is None:  # it had not begun to answer
            self.kill()
            done = subprocess.run(down, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr
