"""`train`: fine-tuning over data-parallel shards with Ray Train. The driver; `train_loop` runs in the workers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train import WorkerGroupError as RayWorkerGroupError
from ray.train.torch import TorchTrainer

from ..errors import WorkloadFailed, WorkloadStopped
from ..job import Job, ProgressWriter, Shard, read_progress
from ..spec import Train
from .checkpoints import step_of
from .examples import read_labels
from .folders import claim, local_folder, require_ours, whole, write_json
from .placement import gang, on_node
from .relay import start_relay
from .stop_watch import StopWatch, end_after_checkpoint, go_on
from .text import load_tokenizer
from .train_loop import train_loop
from .user_loop import user_loop

CHECKPOINTS_KEPT = 2
BESIDE = {"memory": 1.0}
"""What a worker takes whose device the driver holds: a byte, because Ray Train's bundles may not be empty."""


class ReportsToProgress(UserCallback):  # type: ignore[misc]
    """Turns what the shards report into `metrics` and `checkpoint` records. Runs in Ray Train's controller, on the
    driver's node."""

    def __init__(self, path: str) -> None:
        self._path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Rank 0 speaks for the gang; what is not a number is left out. Ray Train has taken note of the checkpoint by
        now: a restart finds it."""
        del run_context
        first = metrics[0] if metrics else {}
        numbers = {k: float(v) for k, v in first.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        epoch = numbers.pop("epoch", None)
        if numbers:
            where = {"epoch": int(epoch)} if epoch is not None else {}
            ProgressWriter(Path(self._path)).write("metrics", **where, values=numbers)
        if checkpoint is not None:
            step = step_of(checkpoint.path)
            ProgressWriter(Path(self._path)).write("checkpoint", **({} if step is None else {"step": step}))


def run(job: Job, progress: ProgressWriter) -> dict[str, Any]:
    """Train, and leave the best model in `<output>/model`. Raises WorkloadFailed, and WorkloadStopped where it was
    asked to end and has written a checkpoint."""
    spec = Train.model_validate(job.spec)
    output = local_folder(job.output)
    claim(output, job.workload_id)
    if spec.entrypoint is None:
        require_ours(output / "model")
        _check_input(spec)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    when_asked = go_on if spec.entrypoint is None else end_after_checkpoint(progress.path)
    with devices(job) as placed, StopWatch(job.stop_path, when_asked):
        trainer = _trainer(job, spec, placed, {"job": job.to_json(), "relay": start_relay(job)})
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise _why(error, spec) from error
    summary = result.return_value if spec.entrypoint is None else None
    if isinstance(summary, dict) and "stopped" in summary:
        raise WorkloadStopped(f"a checkpoint was written at step {summary['stopped']}")
    progress.write("phase", phase="finishing")
    if spec.entrypoint is not None:
        # Ray Train gives back what came with the last checkpoint; what was reported after it is newer.
        metrics = {**_numbers(result.metrics or {}), **_last_reported(progress.path)}
        return {"outputs": {"output": job.output}, "metrics": metrics}
    return _publish(job, output, summary or {})


def _trainer(job: Job, spec: Train, placed: ScalingConfig, config: dict[str, Any]) -> TorchTrainer:
    return TorchTrainer(
        train_loop if spec.entrypoint is None else user_loop,
        train_loop_config=config,
        scaling_config=placed,
        run_config=RunConfig(
            name=job.workload_id,
            storage_path=str(Path(job.run_dir, "train").absolute()),
            failure_config=FailureConfig(max_failures=spec.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[ReportsToProgress(job.progress_path)],
        ),
    )


@contextmanager
def devices(job: Job) -> Iterator[ScalingConfig]:
    """One worker a shard, each on its own node, for as long as the body runs. Raises WorkloadFailed where the shards
    cannot be one gang.

    Ray Train takes the same resources for every worker. Where the shards' differ, the driver holds them, and the
    workers run beside them without any: what an emulated device or a core is named is no concern of theirs.
    """
    first = dict(job.shards[0].resources)
    if all(dict(shard.resources) == first for shard in job.shards):
        yield _scaling(job, first, use_gpu=first.get("GPU", 0) > 0)
        return
    hardware = sorted({shard.device_type for shard in job.shards if not _on_host(shard)})
    if hardware:
        others = sorted({shard.device_type for shard in job.shards if shard.device_type not in hardware})
        beside = f" beside {', '.join(others)}" if others else ""
        types = ", ".join(hardware) + beside
        raise WorkloadFailed(f"one gang cannot train on {types}: their shards cannot add up gradients")
    with gang(job.run_id, [shard.resources for shard in job.shards], [shard.node_id for shard in job.shards]):
        yield _scaling(job, BESIDE, use_gpu=False)


def _on_host(shard: Shard) -> bool:
    """Whether a host's cores do its work."""
    return shard.emulated_speed is not None or set(shard.resources) <= {"CPU", "memory"}


def _scaling(job: Job, resources: dict[str, float], *, use_gpu: bool) -> ScalingConfig:
    return ScalingConfig(
        num_workers=len(job.shards),
        use_gpu=use_gpu,
        resources_per_worker=resources,
        label_selector=[on_node(shard.node_id) for shard in job.shards],
    )


def _check_input(spec: Train) -> None:
    folder = Path((spec.input or "").removeprefix("file://"))
    if not folder.is_dir():
        raise WorkloadFailed(f"input {folder} is not a folder; it must be the output of a preprocess step")
    read_labels(folder)
    for split in ("train", "validation"):
        if not any((folder / split).glob("*.parquet")):
            raise WorkloadFailed(f"input {folder} has no split {split}; train needs train and validation")
    load_tokenizer(spec.model or "")


def _publish(job: Job, output: Path, summary: dict[str, Any]) -> dict[str, Any]:
    if "failed" in summary:
        raise WorkloadFailed(summary["failed"])
    with whole(output / "model", job.workload_id) as draft:
        shutil.copytree(summary.pop("model"), draft, dirs_exist_ok=True)
    write_json(output / "metrics.json", summary)
    return {
        "outputs": {"output": job.output, "model": str(output / "model")},
        "metrics": _numbers(summary),
        "rows": summary["samples"],
        "tokens": summary["tokens"],
    }


def _last_reported(path: Path) -> dict[str, float]:
    """The numbers of the last report of all that the run's attempts wrote down."""
    reports = [record for record in read_progress(path)[0] if record["kind"] == "metrics"]
    return _numbers(reports[-1]["values"]) if reports else {}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _why(error: TrainingFailedError, spec: Train) -> WorkloadFailed:
    """The first worker's own error, in one line. A user's exception has already had its retries in place."""
    causes = list(error.worker_failures.values()) if isinstance(error, RayWorkerGroupError) else []
    for cause in causes:
        if isinstance(cause, WorkloadFailed):  # our own word, not the user's: an entrypoint that is not there
            return cause
        text = str(cause).strip().splitlines() or [type(cause).__name__]
        name = type(cause).__name__
        if "Died" in name or "Unavailable" in name or name == "RayActorError":
            continue
        where = f"{spec.entrypoint} raised" if spec.entrypoint is not None else "training failed"
        return WorkloadFailed(f"{where}: {text[-1]}", retryable=spec.entrypoint is None)
    last = str(error).strip().splitlines()
    return WorkloadFailed(f"training stopped: {last[-1] if last else type(error).__name__}", retryable=True)
