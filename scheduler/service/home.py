"""The service's folder: where it is, what lies in it, and how a client finds the service that runs from it.

<home>/raywise.db       workloads, events, calibration
<home>/token            the administrator's token, readable by its owner only
<home>/service.json     URL and process of the running service
<home>/service.log      what a detached service prints
<home>/runs/<id>/       a workload's output, checkpoints and progress
<home>/cluster/         the local cluster, where the service started one
<home>/host.json        measured rates of this machine
<home>/clusters/        what `ray` and `kubectl` were told by `raywise cluster`
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workloads.errors import RaywiseError

from .token_text import ADMIN, new_token

HOME_VARIABLE = "RAYWISE_HOME"


class HomeError(RaywiseError):
    """The folder cannot be used as the service's home."""


class ServiceRunning(RaywiseError):
    """Another service already works from this folder."""


@dataclass(frozen=True)
class ServiceInfo:
    """The running service, as its clients find it."""

    url: str
    pid: int
    process_started_s: float
    """Start time of the process: a reused pid is not taken for the service."""
    ray_address: str
    ray_dashboard_url: str
    owns_cluster: bool

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.process_started_s) < 1.0 and process.status() != "zombie"
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Home:
    """The folder and its parts."""

    path: Path
    runs_path: Path | None = None
    """The workloads' folders, where they lie elsewhere: on what all nodes of the cluster share."""

    @classmethod
    def default(cls) -> Home:
        """`$RAYWISE_HOME`, or `~/.raywise`."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or "~/.raywise").expanduser().resolve())

    def prepare(self) -> None:
        """Make the folder, for its owner only; one that is there becomes private. Raises HomeError where it cannot, or
        where the folder is shared by its nature, such as `/tmp`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.path.stat().st_mode & stat.S_ISVTX:
                raise HomeError(f"{self.path} is shared with others\n  hint: choose a folder of its own as home")
            self.path.chmod(0o700)
            self.runs.mkdir(exist_ok=True, parents=True)
        except OSError as error:
            raise HomeError(f"{self.path} cannot be the home folder: {error.strerror}") from None

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.path / "raywise.db"

    @property
    def runs(self) -> Path:
        """Folder of the workloads' folders."""
        return self.runs_path or self.path / "runs"

    @property
    def cluster(self) -> Path:
        """Folder of the local cluster."""
        return self.path / "cluster"

    @property
    def profiles(self) -> Path:
        """Cache of traced models."""
        return self.path / "profiles"

    @property
    def host_file(self) -> Path:
        """Cache of the host's measured rates."""
        return self.path / "host.json"

    @property
    def log(self) -> Path:
        """What a detached service prints."""
        return self.path / "service.log"

    def read_token(self) -> str | None:
        """The administrator's token, or None before the first start."""
        try:
            return (self.path / "token").read_text().strip()
        except FileNotFoundError:
            return None

    def ensure_token(self) -> str:
        """The administrator's token, made at the first start (mode 0600)."""
        token = self.read_token()
        if not token:
            token = new_token(ADMIN)
            self.write_token(token)
        return token

    def write_token(self, token: str) -> None:
        """Replace the administrator's token, in one step; readable by its owner only."""
        _write_private(self.path / "token", token)

    def service(self) -> ServiceInfo | None:
        """The service that runs from this folder, or None."""
        try:
            info = ServiceInfo(**json.loads((self.path / "service.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return info if info.is_alive() else None

    def announce(self, info: ServiceInfo) -> None:
        """Let clients find the service."""
        _write_private(self.path / "service.json", json.dumps(asdict(info)))

    def withdraw(self) -> None:
        """The service is gone."""
        (self.path / "service.json").unlink(missing_ok=True)

    def lock(self) -> int:
        """Hold the folder for this process; the lock goes with the process, however it ends. Raises ServiceRunning."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ServiceRunning(f"a service already runs from {self.path}") from None
        return descriptor


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(draft, path)
