"""The training loop of one shard: built-in text classification under Ray Train and DDP.

All shards go through the same global batches in step. Once a step they add up a few numbers (loss, whether a checkpoint
is due or the run is to end, and what each has computed), so they agree on everything that changes what they do next.
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import nn

from ..errors import WorkloadFailed
from ..job import Job, Shard
from ..spec import Train
from . import batching
from .balance import Balance
from .checkpoints import Position, read_checkpoint, remove_unreported, write_checkpoint
from .classifier import new_classifier, save_classifier
from .emulation import Pacer
from .examples import Examples, read_examples, read_labels
from .own_time import own_time, reduce_when_ready
from .stop_watch import StopRequests
from .text import load_tokenizer
from .train_progress import ShardWork, TrainProgress
from .workers import my_shard, quiet_ray_train

MAX_GRADIENT_NORM = 1.0
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train one shard; returns the run's summary, `failed` where every shard would fail again, or `stopped` with the
    step at which the run was ended."""
    job = Job.from_json(config["job"])
    quiet_ray_train()
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its successor is newer than 2.6
    try:
        return Trainer(job, config["relay"]).run()
    except WorkloadFailed as error:
        # Raised on all shards alike. Returned, because Ray Train would retry an exception.
        return {"failed": str(error)}


class Step(NamedTuple):
    """What all shards know of a step that is done."""

    loss: float
    """Mean over the global batch."""
    work: list[ShardWork]
    """By rank."""
    due: bool
    """A checkpoint is to be written."""
    stop: bool
    """The run is to end."""


class Trainer:
    """One shard's part of a run."""

    def __init__(self, job: Job, relay: Any) -> None:
        self.job, self.spec = job, Train.model_validate(job.spec)
        self.options = self.spec.text_classification
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        shard = my_shard(job)
        torch.set_num_threads(max(1, shard.threads))
        self.pacer = Pacer(shard.emulated_speed)
        self.device = ray.train.torch.get_device()
        self.folder = Path(job.run_dir, "train", job.workload_id)
        self.gang = self._meet(shard)
        self.mixed = len({member.device_type for member in self.gang}) > 1
        self.balance = Balance([member.speed for member in self.gang], adapts=self.mixed)
        self.stops = StopRequests(relay) if self.rank == 0 else None
        self.stopping = False
        self._load_data()
        self._load_model()
        types = [member.device_type for member in self.gang]
        self.progress = TrainProgress(relay if self.rank == 0 else None, types, self.spec.precision, self.total_steps)

    def _meet(self, mine: Shard) -> list[Shard]:
        """The shards of the gang by rank."""
        places = [0.0] * self.world
        places[self.rank] = float(self.job.shards.index(mine))
        return [self.job.shards[int(place)] for place in self._add_up(places)]

    def _load_data(self) -> None:
        folder = Path((self.spec.input or "").removeprefix("file://"))
        self.labels = read_labels(folder)
        self.train = read_examples(folder / "train", self.options.max_length)
        self.validation = read_examples(folder / "validation", self.options.max_length)
        self.steps_per_epoch = batching.steps_per_epoch(len(self.train), self.options.batch_size)
        self.total_steps = batching.total_steps(
            len(self.train), self.options.batch_size, self.options.epochs, self.options.max_steps
        )

    def _load_model(self) -> None:
        torch.manual_seed(self.options.seed)  # the same fresh head on every shard
        self.tokenizer = load_tokenizer(self.spec.model or "")
        self.model = new_classifier(self.spec.model or "", self.labels, self.options.pooling)
        kwargs = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
        self.parallel = ray.train.torch.prepare_model(self.model, parallel_strategy_kwargs=kwargs)
        self.own = own_time(self.device, self.pacer)
        if self.mixed:
            self.parallel.register_comm_hook(self.own, reduce_when_ready)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.options.weight_decay), lr=self.options.learning_rate, fused=True
        )
        scaled = self.spec.precision == "fp16" and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda") if scaled else None

    def run(self) -> dict[str, Any]:
        """All epochs from the latest checkpoint on."""
        self.position = self._resume()
        self.progress.begin(self.position.step * self.options.batch_size)
        self._saved_at = time.monotonic()
        while self.position.step < self.total_steps:
            epoch, _ = divmod(self.position.step, self.steps_per_epoch)
            loss = self._train_epoch(epoch)
            at = self.position.step
            if at % self.steps_per_epoch == 0 or at == self.total_steps:
                self._finish_epoch(epoch, loss)
            if self.stopping and at < self.total_steps:
                return {"stopped": at}
        return self._summary()

    def _resume(self) -> Position:
        checkpoint = ray.train.get_checkpoint()
        position = Position()
        if checkpoint is not None:
            position = read_checkpoint(Path(checkpoint.path), self.model, self.optimizer, self.scaler)
            if self.rank == 0:
                self.progress.record("resumed", step=position.step, **{"from": Path(checkpoint.path).name})
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unreported(self.folder, position.step)
        return position

    def _train_epoch(self, epoch: int) -> float:
        batches = batching.plan_epoch(self.train.lengths, self.options.batch_size, self.options.seed, epoch)
        begin = epoch * self.steps_per_epoch
        batches = batches[: self.total_steps - begin]
        first = self.position.step - begin
        losses: list[float] = []
        self.parallel.train()
        for number, rows in enumerate(batches[first:], start=first):
            started = time.perf_counter()
            step = self._step(rows, self.position.step)
            seconds = time.perf_counter() - started
            losses.append(step.loss)
            self.position = replace(self.position, step=self.position.step + 1, train_s=self.position.train_s + seconds)
            self.progress.step(self.position.step, epoch, step.loss, step.work, seconds)
            self.stopping = step.stop
            if (step.due or step.stop) and number + 1 < len(batches):  # the end of the epoch or of the run saves anyway
                self._save({})
            if step.stop:
                break
        return float(np.mean(losses)) if losses else math.nan

    def _step(self, rows: batching.IndexArray, step: int) -> Step:
        """One global batch, each shard its part of it. Raises WorkloadFailed where the loss is no number."""
        mine = batching.share(rows, self.rank, self.balance.weights)
        self.own.begin()
        with self.pacer.pace():
            torch.manual_seed(batching.step_seed(self.options.seed, step, self.rank))
            loss_sum, tokens = self._backward(mine, len(rows))
            self._update(step)
        due = self.rank == 0 and time.monotonic() - self._saved_at >= self.spec.checkpoint_every
        stop = self.stops is not None and self.stops.come()
        own = [0.0] * (2 * self.world)  # each in its place: the sum is then the same to the bit on all shards
        own[self.rank], own[self.world + self.rank] = self.own.seconds() if self.mixed else 0.0, float(tokens)
        total_loss, any_due, any_stop, *each = self._add_up([loss_sum, float(due), float(stop), *own])
        if not math.isfinite(total_loss):
            raise WorkloadFailed(
                f"the loss became {total_loss} at step {step}; a lower learning_rate or precision fp32 may help"
            )
        counts = batching.row_counts(len(rows), self.balance.weights)
        work = [ShardWork(*one) for one in zip(counts, each[self.world :], each[: self.world], strict=True)]
        self.balance.observe(each[: self.world])
        return Step(total_loss / len(rows), work, any_due > 0, any_stop > 0)

    def _backward(self, mine: batching.IndexArray, global_rows: int) -> tuple[float, int]:
        empty = len(mine) == 0  # a last batch with fewer rows than shards: take part in the all-reduce with nothing
        rows = np.zeros(1, dtype=np.int64) if empty else mine
        ids, mask, labels = self._tensors(self.train, rows)
        with self._autocast():
            logits = self.parallel(ids, mask)
        loss_sum = nn.functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.options.label_smoothing, reduction="sum"
        )
        # DDP averages over the shards; with this weight the average is the mean over the global batch.
        loss = loss_sum * (0.0 if empty else self.world / global_rows)
        (self.scaler.scale(loss) if self.scaler is not None else loss).backward()
        return (0.0, 0) if empty else (float(loss_sum.detach()), ids.numel())

    def _update(self, step: int) -> None:
        factor = batching.learning_rate_factor(step, self.total_steps, self.options.warmup_ratio)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _finish_epoch(self, epoch: int, train_loss: float) -> None:
        accuracy, loss = self._validate()
        if accuracy > self.position.best_accuracy:
            self.position = replace(self.position, best_accuracy=accuracy, best_epoch=epoch)
            if self.rank == 0:
                self._save_best()
        values = {"epoch": epoch, "validation_accuracy": accuracy, "validation_loss": loss}
        if math.isfinite(train_loss):
            values["train_loss"] = train_loss
        self._save(values)

    def _validate(self) -> tuple[float, float]:
        """(accuracy, loss) over the whole validation split, each shard its part."""
        mine = batching.share(np.arange(len(self.validation)), self.rank, self.balance.weights)
        correct = loss_sum = 0.0
        self.parallel.eval()
        size = max(self.options.batch_size, 64)
        with torch.inference_mode():
            for places in batching.length_batches(self.validation.lengths[mine].tolist(), size):
                with self.pacer.pace():
                    ids, mask, labels = self._tensors(self.validation, mine[places])
                    with self._autocast():
                        logits = self.model(ids, mask).float()
                    correct += float((logits.argmax(1) == labels).sum())
                    loss_sum += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        correct, loss_sum = self._add_up([correct, loss_sum])
        return correct / len(self.validation), loss_sum / len(self.validation)

    def _save_best(self) -> None:
        best, draft = self.folder / "best", self.folder / ".best.partial"
        shutil.rmtree(draft, ignore_errors=True)
        save_classifier(self.model, self.tokenizer, draft, self.options.max_length)
        shutil.rmtree(best, ignore_errors=True)
        draft.rename(best)

    def _save(self, metrics: dict[str, Any]) -> None:
        """Write and report a checkpoint; every shard calls this at the same step."""
        checkpoint = self._write_checkpoint() if self.rank == 0 else None
        ray.train.report(
            metrics, checkpoint=checkpoint, checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD
        )
        self._saved_at = time.monotonic()

    def _write_checkpoint(self) -> Any:
        """A full disk costs this checkpoint, not the run: the one before is still there."""
        try:
            path = write_checkpoint(self.folder, self.position, self.model, self.optimizer, self.scaler)
        except (OSError, RuntimeError) as error:
            message = f"no checkpoint at step {self.position.step}: {str(error).splitlines()[0]}"
            self.progress.record("note", message=message)
            return None
        return ray.train.Checkpoint(str(path))

    def _summary(self) -> dict[str, Any]:
        samples, tokens = batching.seen(
            self.train.lengths, self.options.batch_size, self.options.seed, self.total_steps
        )
        return {
            "model": str(self.folder / "best"),
            "steps": self.position.step,
            "epochs": -(-self.total_steps // self.steps_per_epoch),
            "best_epoch": self.position.best_epoch,
            "validation_accuracy": self.position.best_accuracy,
            "train_s": round(self.position.train_s, 3),
            "samples": samples,
            "tokens": tokens,
            "shards": self.world,
            "precision": self.spec.precision,
        }

    def _tensors(self, examples: Examples, rows: batching.IndexArray) -> tuple[Any, Any, Any]:
        arrays = examples.batch(rows, self.tokenizer.pad_token_id)
        ids, mask, labels = (torch.from_numpy(array).to(self.device) for array in arrays)
        return ids, mask, labels

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = DTYPES.get(self.spec.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _add_up(self, values: list[float]) -> list[float]:
        """Element by element over all shards."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms (vectors) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
