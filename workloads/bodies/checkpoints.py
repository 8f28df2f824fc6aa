"""Where a training run continues: the model, the optimizer and the step, on storage that every node sees.

Rank 0 writes a checkpoint straight to its final place (no second copy), under a temporary name until it is whole.
Random states and the learning rate are functions of the step, so the step is all there is to know about the position.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STATE_FILE = "state.pt"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Position:
    """How far a run is: `step` global batches done, the best validation accuracy so far, seconds spent."""

    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = -1
    train_s: float = 0.0


def write_checkpoint(folder: Path, position: Position, model: Any, optimizer: Any, scaler: Any) -> Path:
    """Save under `folder` and return the checkpoint's path."""
    path = folder / f"{_PREFIX}{position.step:09d}"
    draft = path.with_name(f".{path.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)  # left by an attempt that was killed before it reported it
    draft.mkdir(parents=True)
    state = {"position": vars(position), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if scaler is not None:
        state["scaler"] = scaler.state_dict()
    torch.save(state, draft / STATE_FILE)
    os.rename(draft, path)
    return path


def read_checkpoint(path: Path, model: Any, optimizer: Any, scaler: Any) -> Position:
    """Load into model and optimizer; returns where the run goes on."""
    state = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])
    return Position(**state["position"])


def step_of(path: str) -> int | None:
    """The step that a checkpoint of `write_checkpoint` was written at; None where another wrote it."""
    name = Path(path).name
    number = name.removeprefix(_PREFIX)
    return int(number) if name.startswith(_PREFIX) and number.isdecimal() else None


def remove_unreported(folder: Path, step: int) -> None:
    """Delete checkpoints after `step`: an attempt wrote them and was killed before Ray Train knew of them."""
    for path in [*folder.glob(f"{_PREFIX}*"), *folder.glob(f".{_PREFIX}*")]:
        number = path.name.removeprefix(".").removeprefix(_PREFIX).removesuffix(".partial")
        if path.name.startswith(".") or (number.isdigit() and int(number) > step):
            shutil.rmtree(path, ignore_errors=True)
