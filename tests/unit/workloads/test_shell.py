"""The process of a command: its exit code, its whole session ended with it, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workloads import shell


def start(command: str, folder: Path, **env: str) -> subprocess.Popen[str]:
    """As Ray's job supervisor does, in a session of its own."""
    environment = {"PATH": os.environ["PATH"], shell.COMMAND: command, "RAYWISE_OUTPUT": str(folder / "out"), **env}
    return subprocess.Popen(
        [sys.executable, "-I", "-S", shell.__file__],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(command: str, folder: Path, **env: str) -> tuple[int, str]:
    process = start(command, folder, **env)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def until_written(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text().strip()


def is_gone(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param("true", 0, id="well"),
        pytest.param("exit 7", 7, id="its exit code"),
        pytest.param("no-such-program", 127, id="not found"),
        pytest.param("kill -KILL $$", -9, id="a signal"),
        pytest.param("kill -SEGV $$", -11, id="another signal"),
    ],
)
def test_it_ends_as_the_command_ends(tmp_path: Path, command: str, code: int) -> None:
    assert finish(command, tmp_path)[0] == code


def test_the_command_sees_its_output_folder_and_nothing_on_standard_input(tmp_path: Path) -> None:
    code, output = finish('cat; cd "$RAYWISE_OUTPUT" && echo out && echo err >&2; env', tmp_path)
    assert code == 0
    assert output.startswith("out\nerr\n")
    assert shell.COMMAND not in output


def test_what_it_left_behind_is_gone_before_it_ends(tmp_path: Path) -> None:
    child = tmp_path / "child"
    command = f"trap '' TERM; (sleep 300 & echo $! > {child})"
    assert finish(f"{command}; echo done", tmp_path) == (0, "done\n")
    assert is_gone(child.read_text().strip())


def test_a_stop_file_asks_once_and_a_command_that_saves_is_stopped_not_done(tmp_path: Path) -> None:
    stop, ready, saved = tmp_path / "stop", tmp_path / "ready", tmp_path / "saved"
    command = (
        f"trap 'echo saved >> {saved}; exit 0' TERM; echo > {ready}; echo y > {ready}; while :; do sleep 0.05; done"
    )
    process = start(command, tmp_path, **{shell.STOP_FILE: str(stop)})
    until_written(ready)
    stop.touch()
    assert process.wait(30) == shell.EXIT_STOPPED
    assert saved.read_text() == "saved\n"
    assert process.stdout is not None
    process.stdout.close()


def test_a_signal_to_all_of_it_ends_all_of_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    process = start(f"sleep 300 & echo $! > {child}; wait", tmp_path)
    pid = until_written(child)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == shell.EXIT_STOPPED
    assert is_gone(pid)
    assert process.stdout is not None
    process.stdout.close()


def test_who_waits_for_the_end_is_told(tmp_path: Path) -> None:
    end = tmp_path / "end"
    end.touch()
    os.utime(end, (0, 0))
    finish("true", tmp_path, **{shell.END_FILE: str(end)})
    assert end.stat().st_mtime > 0


def test_only_a_few_modules_are_loaded_for_it(tmp_path: Path) -> None:
    """A short command pays for each of them."""
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", shell.__file__],
        env={"PATH": os.environ["PATH"], shell.COMMAND: "true"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "signal" in loaded
    assert not loaded & {"json", "subprocess", "pathlib", "typing", "re", "threading", "logging", "shutil"}
