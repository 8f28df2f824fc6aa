"""Folders on other storage (`s3://...`, any URL that pyarrow or fsspec opens): fetched before a body needs them as
files, published after it has written them.

A body works on folders that all nodes see; a URL is where a copy comes from or goes to. The marker is copied last, so a
published folder that carries it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from .errors import WorkloadFailed
from .inputs import open_url
from .outputs import MARKER

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")


def is_remote(path: str) -> bool:
    """Whether a path is a URL of other storage."""
    return "://" in path and not path.startswith("file://")


def is_weights(name: str) -> bool:
    """Whether a file of a model folder holds weights, by its ending."""
    return name.endswith(WEIGHTS)


def fetch(url: str, folder: Path, skip: Callable[[str], bool] = lambda _: False) -> Path:
    """Copy the files below a URL into a folder of ours, unless an earlier attempt already has. Raises SpecError where
    the URL cannot be opened, FileNotFoundError where there is nothing."""
    done = folder.with_name(f"{folder.name}.fetched")
    if done.exists():
        return folder
    filesystem, root = open_url(url, "input")
    files = _files(filesystem, root)
    if not files:
        raise FileNotFoundError(f"there is nothing at {url}")
    shutil.rmtree(folder, ignore_errors=True)
    for path in files:
        name = str(PurePosixPath(path).relative_to(root))
        if not skip(name):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with filesystem.open_input_stream(path) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)
    done.touch()
    return folder


def publish(folder: Path, url: str) -> None:
    """Copy a folder to a URL, what lay there before removed, the marker last. Raises WorkloadFailed."""
    try:
        filesystem, root = open_url(url, "output")
        if not may_publish(url):
            raise WorkloadFailed(f"{url} holds what Raywise did not write; it is left as it is")
        filesystem.delete_dir_contents(root, missing_dir_ok=True)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for name in sorted(names, key=lambda name: (name == MARKER, name)):
            target = f"{root.rstrip('/')}/{name}"
            filesystem.create_dir(str(PurePosixPath(target).parent), recursive=True)
            with open(folder / name, "rb") as file, filesystem.open_output_stream(target) as sink:
                shutil.copyfileobj(file, sink)
    except OSError as error:
        raise WorkloadFailed(f"{folder} could not be published to {url}: {error}", retryable=True) from error


def may_publish(url: str) -> bool:
    """Whether nothing is there yet, or a workload of ours published it. Raises SpecError, OSError."""
    filesystem, root = open_url(url, "output")
    files = _files(filesystem, root)
    return not files or f"{root.rstrip('/')}/{MARKER}" in files


def read_text(url: str) -> str:
    """A small text file at a URL. Raises SpecError, OSError."""
    filesystem, path = open_url(url, "input")
    with filesystem.open_input_stream(path) as source:
        return bytes(source.read()).decode()


def _files(filesystem: Any, root: str) -> list[str]:
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    return sorted(entry.path for entry in filesystem.get_file_info(selector) if entry.type == fs.FileType.File)
