"""CPU seconds of a benchmark with everything that it starts, exact and whatever else the machine does: a control group
of its own, where the kernel lets this process make one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class CpuMeter:
    """Counts this process and all that it starts from now on."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def seconds(self) -> float | None:
        """CPU seconds so far; None where they cannot be counted."""
        if self._folder is None:
            return None
        old = self._folder / "cpuacct.usage"
        if old.exists():
            return int(old.read_text()) / 1e9
        fields = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6


@contextlib.contextmanager
def cpu_meter() -> Iterator[CpuMeter]:
    """A meter that this process is in; its group is gone afterwards."""
    parent = ROOT / "cpuacct" if (ROOT / "cpuacct").is_dir() else ROOT
    folder = parent / f"raywise-benchmark-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        yield CpuMeter(None)
        return
    try:
        yield CpuMeter(folder)
    finally:
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(str(os.getpid()))
            folder.rmdir()
