"""The durable record of a command's items: one line of JSON for each that succeeded, appended as it is done.

An item counts as done when its line is there, and not before: an attempt that goes on after a crash does exactly those
without a line. So each item has one result, though one that was being done when its worker died is done again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..outputs import MARKER
from .folders import claim, require_ours, write_json

RESULTS, FAILED, MANIFEST = "results.jsonl", "failed.jsonl", "manifest.json"
SYNC_S = 1.0
"""What a crash of the whole machine may take back; a crash of processes takes nothing."""
FAILED_SHOWN = 1000


@dataclass(frozen=True)
class FailedItem:
    """An item that failed for good."""

    index: int
    item: str
    error: str
    tries: int


class Results:
    """The results in an output folder. Raises WorkloadFailed where the folder is not ours."""

    def __init__(self, folder: Path, workload_id: str, items: Sequence[str]) -> None:
        require_ours(folder)
        if _owner(folder) not in (None, workload_id):  # another workload's: its items are not ours
            for name in (RESULTS, FAILED, MANIFEST):
                (folder / name).unlink(missing_ok=True)
        claim(folder, workload_id)
        self.folder, self.items = folder, items
        self.by_device: Counter[str] = Counter()
        self.done: set[int] = set()
        self.failed: list[FailedItem] = []
        self._read()
        self._file = os.open(folder / RESULTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._synced_s = time.monotonic()
        (folder / FAILED).unlink(missing_ok=True)

    def _read(self) -> None:
        """What earlier attempts did. A torn last line, and lines of items that are others now, are left out for good:
        the file then holds one whole line for each item that is done."""
        path = self.folder / RESULTS
        if not path.exists():
            return
        draft, clean = path.with_name(f".{RESULTS}.partial"), True
        with open(path, "rb") as source, open(draft, "wb") as target:
            for line in source:
                record = self._valid(line)
                if record is None:
                    clean = False
                    continue
                self.done.add(record["index"])
                self.by_device[str(record.get("device_type"))] += 1
                target.write(line)
        if clean:
            draft.unlink()
        else:
            os.replace(draft, path)

    def _valid(self, line: bytes) -> dict[str, Any] | None:
        if not line.endswith(b"\n"):
            return None
        try:
            record = json.loads(line)
            index = record["index"]
            known = isinstance(index, int) and 0 <= index < len(self.items) and index not in self.done
            return record if known and record["item"] == self.items[index] else None
        except (ValueError, KeyError, TypeError):
            return None

    def add(self, indices: Sequence[int], lines: Sequence[str], device_type: str) -> None:
        """Items that are done, with their lines: one write for all of them."""
        data = ("\n".join(lines) + "\n").encode()
        while data:
            data = data[os.write(self._file, data) :]
        self.done.update(indices)
        self.by_device[device_type] += len(indices)
        if time.monotonic() - self._synced_s >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Put on the disk what was written."""
        os.fsync(self._file)
        self._synced_s = time.monotonic()

    def add_failed(self, failed: FailedItem) -> None:
        """An item that failed for good in this attempt."""
        self.failed.append(failed)
        with open(self.folder / FAILED, "a", encoding="utf-8") as file:
            file.write(json.dumps(vars(failed), ensure_ascii=False) + "\n")

    def finish(self, seconds: float) -> None:
        """Write the manifest."""
        self.sync()
        shown = [vars(each) for each in sorted(self.failed, key=lambda each: each.index)[:FAILED_SHOWN]]
        manifest = {
            "items": len(self.items),
            "succeeded": len(self.done),
            "failed": len(self.failed),
            "by_device": dict(sorted(self.by_device.items())),
            "seconds": round(seconds, 3),
            "results": RESULTS,
            "failed_items": shown,
        }
        write_json(self.folder / MANIFEST, manifest)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def _owner(folder: Path) -> str | None:
    """The workload that wrote into a folder last; None where nobody did."""
    try:
        return str(json.loads((folder / MARKER).read_text())["workload_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""
