"""`train`: fine-tuning over data-parallel shards with Ray Train. The driver; `train_loop` runs in the workers."""

from __future__ import annotations

import logging
import shutil
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

from ..errors import WorkloadFailed
from ..job import Job, ProgressWriter
from ..spec import Train
from .checkpoints import step_of
from .examples import read_labels
from .folders import claim, local_folder, require_ours, whole, write_json
from .placement import on_node
from .relay import start_relay
from .text import load_tokenizer
from .train_loop import train_loop
from .user_loop import user_loop

CHECKPOINTS_KEPT = 2


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
    """Train, and leave the best model in `<output>/model`. Raises WorkloadFailed."""
    spec = Train.model_validate(job.spec)
    output = local_folder(job.output)
    claim(output, job.workload_id)
    if spec.entrypoint is None:
        require_ours(output / "model")
        _check_input(spec)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    relay = start_relay(progress)
    config = {"job": job.to_json(), "relay": relay}
    trainer = TorchTrainer(
        train_loop if spec.entrypoint is None else user_loop,
        train_loop_config=config,
        scaling_config=scaling(job),
        run_config=RunConfig(
            name=job.workload_id,
            storage_path=str(Path(job.run_dir, "train").absolute()),
            failure_config=FailureConfig(max_failures=spec.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[ReportsToProgress(str(progress.path))],
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise _why(error, spec) from error
    progress.write("phase", phase="finishing")
    if spec.entrypoint is not None:
        return {"outputs": {"output": job.output}, "metrics": _numbers(result.metrics or {})}
    return _publish(job, output, result.return_value or {})


def scaling(job: Job) -> ScalingConfig:
    """One worker a shard, each on its own node. Raises WorkloadFailed where shards hold different resources."""
    resources = [dict(shard.resources) for shard in job.shards]
    if any(other != resources[0] for other in resources):
        raise WorkloadFailed("one training job needs one device type: its shards would hold different resources")
    return ScalingConfig(
        num_workers=len(job.shards),
        use_gpu=resources[0].get("GPU", 0) > 0,
        resources_per_worker=resources[0],
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
