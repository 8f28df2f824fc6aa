"""What a workload printed, all attempts as one text that only ever grows at its end, read from a byte on.

Of an attempt that runs, its first `HEAD_BYTES` are shown as they come. What an ended one printed is copied into its
workload's folder, since Ray's files go with its cluster: all of it, or, where it is longer than `HEAD_BYTES` and
`TAIL_BYTES` together, these two with lines between them that say what is left out and where it is. A thread of its own
copies: the engine waits for no log.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from cluster.job_logs import FILE, read_file
from cluster.protocols import ClusterUnreachable, LogPart

from ..store import Record

log = logging.getLogger(__name__)

HEAD_BYTES = 48 << 20
TAIL_BYTES = 16 << 20
"""Of an attempt that printed more, so much is kept from its beginning and from its end."""
PART_BYTES = 1 << 20
"""A reader gets so much at a time."""
TRIES = 12
"""A cluster that does not answer, or a full disk, is tried again so often, for about seven minutes."""
LONGEST_PAUSE_S = 60.0


class Prints(Protocol):
    """What is asked of an executor here."""

    def log_part(self, run_id: str, offset: int, most: int, *, fresh: bool = False) -> LogPart:
        """As `cluster.protocols.Executor` has it."""
        ...


def cut_here(run_id: str) -> bytes:
    """What stands behind the beginning of a long log."""
    place = f"{FILE.format(run_id=run_id)} among Ray's logs on the node that it ran on"
    text = f"--- only the first {HEAD_BYTES >> 20} MiB are shown, and the last {TAIL_BYTES >> 20} when it has ended"
    return f"\n{text}; all of it is in {place}\n".encode()


def left_out(count: int) -> bytes:
    """What stands before its end."""
    return f"--- {count} bytes are left out here\n".encode()


@dataclass(frozen=True)
class _Piece:
    """A part of the whole text: so many bytes, and how some of them are read."""

    size: int
    read: Callable[[int, int], bytes]


class RunLogs:
    """Reads what workloads printed; `keep` copies what an ended attempt did. Safe to use from several threads."""

    def __init__(self, executor: Prints, folder: Path) -> None:
        """`folder` has a file for each attempt that is still to be copied: the next service takes it up."""
        self._executor = executor
        self.keeper = LogKeeper(executor, folder)

    def keep(self, record: Record) -> None:
        """Copy what the present attempt printed, now that it has ended."""
        self.keeper.keep(record.run_id, Path(record.run_dir))

    def is_whole(self, record: Record) -> bool:
        """Whether nothing more comes of the attempts that have ended."""
        return not any(self.keeper.is_keeping(run_id) for run_id in _run_ids(record))

    def size(self, record: Record) -> int:
        """Bytes that there are. Raises ClusterUnreachable."""
        return sum(piece.size for piece in self._pieces(record))

    def read(self, record: Record, offset: int = 0, most: int = PART_BYTES) -> bytes:
        """At most so many bytes from one on; none where there are no more yet. Raises ClusterUnreachable."""
        found, begin = [], 0
        for piece in self._pieces(record):
            end = begin + piece.size
            if offset < end:
                data = piece.read(offset - begin, min(most, end - offset))
                found.append(data)
                offset, most = offset + len(data), most - len(data)
                if offset < end or not most:
                    break
            begin = end
        return b"".join(found)

    def _pieces(self, record: Record) -> Iterator[_Piece]:
        for number, run_id in enumerate(_run_ids(record), start=1):
            if number > 1:
                yield _bytes(f"\n--- attempt {number}\n".encode())
            copying = self.keeper.is_keeping(run_id)
            kept = _file(Path(record.run_dir) / f"{run_id}.log")
            if kept is not None:
                yield kept
                continue
            yield from self._shown(run_id)
            if copying:  # its end comes before the attempt behind it
                return

    def _shown(self, run_id: str) -> Iterator[_Piece]:
        """What Ray has."""
        size = self._executor.log_part(run_id, 0, 0).size
        yield _Piece(min(size, HEAD_BYTES), lambda offset, most: self._executor.log_part(run_id, offset, most).data)
        if size > HEAD_BYTES + TAIL_BYTES:
            yield _bytes(cut_here(run_id))


def _run_ids(record: Record) -> list[str]:
    return [replace(record, attempt=attempt).run_id for attempt in range(1, record.attempt + 1)]


def _bytes(text: bytes) -> _Piece:
    return _Piece(len(text), lambda offset, most: text[offset : offset + most])


def _file(path: Path) -> _Piece | None:
    found = read_file(path, 0, 0)

    def read(offset: int, most: int) -> bytes:
        part = read_file(path, offset, most)
        return b"" if part is None else part.data

    return None if found is None else _Piece(found.size, read)


@dataclass
class _Wanted:
    """An attempt that is to be copied, and when that is tried next."""

    run_id: str
    run_dir: Path
    tries: int = 0
    due_s: float = float("-inf")


class LogKeeper:
    """Copies the logs of ended attempts, one after the other, in a thread that lives as long as there are any."""

    def __init__(self, executor: Prints, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._executor, self._folder, self._clock = executor, folder, clock
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wanted = {each.run_id: each for each in _noted(folder)}

    def take_up(self) -> None:
        """Go on with what the service before this one left."""
        with self._changed:
            self._begin()

    def keep(self, run_id: str, run_dir: Path) -> None:
        """Copy this one; nothing where that is done, or about to be."""
        with self._changed:
            if run_id in self._wanted or (run_dir / f"{run_id}.log").exists():
                return
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                (self._folder / run_id).write_text(json.dumps(str(run_dir)))
            except OSError as error:  # a service that ends before it is copied loses it with the cluster
                log.warning("it cannot be noted that the log of %s is to be kept: %s", run_id, error)
            self._wanted[run_id] = _Wanted(run_id, run_dir)
            self._begin()

    def is_keeping(self, run_id: str) -> bool:
        """Whether it is still to be copied."""
        return run_id in self._wanted

    def close(self, patience_s: float) -> None:
        """Wait so long for what is to be copied. The next service takes up what is not."""
        with self._changed:
            self._changed.wait_for(lambda: all(each.tries for each in self._wanted.values()), patience_s)
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(patience_s)

    def _begin(self) -> None:
        if self._wanted and self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="logs", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._closed or not self._wanted:
                    self._thread = None
                    self._changed.notify_all()
                    return
                wanted = min(self._wanted.values(), key=lambda each: each.due_s)
                wait_s = wanted.due_s - self._clock()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            self._try(wanted)

    def _try(self, wanted: _Wanted) -> None:
        try:
            self._copy(wanted.run_id, wanted.run_dir)
        except (OSError, ClusterUnreachable) as error:
            wanted.tries += 1
            if wanted.tries < TRIES and wanted.run_dir.is_dir():
                wanted.due_s = self._clock() + min(LONGEST_PAUSE_S, 2.0**wanted.tries)
                with self._changed:
                    self._changed.notify_all()
                return
            log.warning("the log of %s is not kept: %s", wanted.run_id, error)
        except Exception:  # a defect here must not keep every other log from being copied
            log.exception("the log of %s is not kept", wanted.run_id)
        with suppress(OSError):
            (self._folder / wanted.run_id).unlink(missing_ok=True)
        with self._changed:
            self._wanted.pop(wanted.run_id, None)
            self._changed.notify_all()

    def _copy(self, run_id: str, run_dir: Path) -> None:
        size = self._executor.log_part(run_id, 0, 0, fresh=True).size
        if not size:
            return
        draft = run_dir / f"{run_id}.log.partial"
        try:
            with open(draft, "wb") as file:
                if size <= HEAD_BYTES + TAIL_BYTES:
                    self._take(file, run_id, 0, size)
                else:
                    self._take(file, run_id, 0, HEAD_BYTES)
                    file.write(cut_here(run_id) + left_out(size - HEAD_BYTES - TAIL_BYTES))
                    self._take(file, run_id, size - TAIL_BYTES, size)
            os.replace(draft, run_dir / f"{run_id}.log")
        finally:
            draft.unlink(missing_ok=True)

    def _take(self, file: BinaryIO, run_id: str, offset: int, end: int) -> None:
        """Raises ClusterUnreachable where it went away meanwhile."""
        while offset < end:
            data = self._executor.log_part(run_id, offset, min(PART_BYTES, end - offset)).data
            if not data:
                raise ClusterUnreachable(f"only {offset} of {end} bytes came")
            file.write(data)
            offset += len(data)


def _noted(folder: Path) -> Iterator[_Wanted]:
    """What is still to be copied; a note that cannot be read is passed over."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            yield _Wanted(path.name, Path(json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s says no log to be kept: %s", path, error)
