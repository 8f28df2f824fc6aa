"""What a user may ask for: one model class per kind of workload. YAML becomes these in `loading`; the reference of all
fields is `docs/spec.md` (a test keeps the two equal).

Paths in a `WorkloadSpec` are absolute or URLs by the time the service stores it; `${step.output}` references between
the steps of a pipeline stay until the step is admitted.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from .items import Items
from .quantities import Bytes, CountRange, Duration

MAX_STEPS = 1000
OURS = re.compile(r"RAYWISE_.*|RAY_AUTH_.*|RAY_ADDRESS")
"""Variables by which the service tells a run what it is and how to reach its cluster."""


def _not_ours(name: str) -> str:
    if OURS.fullmatch(name):
        raise ValueError(f"the variable {name} is set by the service")
    return name


Kind = Literal["preprocess", "train", "batch-infer", "serve", "command", "benchmark"]
Objective = Literal["cost", "balanced", "time"]
Precision = Literal["fp32", "bf16", "fp16"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$")]
Entrypoint = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=255), AfterValidator(_not_ours)]


class Model(BaseModel):
    """Base of every spec class: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _form(devices: Any) -> str:
    return "list" if isinstance(devices, list) else "mapping" if isinstance(devices, dict) else "word"


Devices = Annotated[
    Annotated[Literal["any", "accelerator", "cpu"], Tag("word")]
    | Annotated[list[str], Tag("list")]
    | Annotated[dict[str, CountRange], Tag("mapping")],
    Discriminator(_form),  # so that an error is about the form that was written, not about all three
]


class Resources(Model):
    """Which devices a workload may run on, and how many of them.

    `devices` as `any`, `accelerator`, `cpu` or a list of device types: alternatives, the scheduler picks one type.
    `devices` as a mapping `{T4: 1..2, A100: 1}`: all of these types together.
    """

    devices: Devices = "any"
    count: CountRange | None = None
    mix: bool = False
    cpus_per_shard: float | None = Field(default=None, gt=0, le=4096)
    memory_per_shard: Bytes | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Resources:
        if isinstance(self.devices, list | dict) and not self.devices:
            raise ValueError("devices names no device type")
        if isinstance(self.devices, dict) and self.count is not None:
            raise ValueError("count belongs to each device type when devices is a mapping")
        return self

    @property
    def count_range(self) -> CountRange:
        """The count of devices asked for; 1 where nothing is said."""
        return self.count or CountRange(low=1, high=1)


class WorkloadBase(Model):
    """Fields that every kind has."""

    name: Name
    needs: list[Name] = Field(default=[], max_length=MAX_STEPS)
    resources: Resources = Resources()
    objective: Objective = "balanced"
    deadline: Duration | None = None
    budget_usd: float | None = Field(default=None, gt=0)
    priority: int = Field(default=0, ge=-1000, le=1000)
    queue: Name = "default"
    retries: int = Field(default=2, ge=0, le=100)
    grace: Duration = 30.0
    env: dict[EnvName, str] = {}
    output: str | None = None
    code: str | None = None
    expected_runtime: Duration | None = None


class TextClassification(Model):
    """Hyper-parameters of the built-in text-classification trainer."""

    epochs: int = Field(default=3, ge=1, le=1000)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1, le=65536)
    learning_rate: float = Field(default=2e-5, gt=0, lt=10)
    weight_decay: float = Field(default=0.01, ge=0, lt=1)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    max_length: int = Field(default=128, ge=4, le=8192)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    pooling: Literal["mean", "cls"] = "mean"
    seed: int = 0


def _check_hyperparameters(model: type[Model], values: dict[str, Any]) -> None:
    """Validate built-in hyper-parameters; errors are located below `hyperparameters`."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        details = [
            InitErrorDetails(
                type=item["type"], loc=("hyperparameters", *item["loc"]), input=item["input"], ctx=item.get("ctx", {})
            )
            for item in error.errors()
        ]
        raise ValidationError.from_exception_data(model.__name__, details) from None


class Preprocess(WorkloadBase):
    """Turn raw text tables into tokenised Parquet, one folder per split, with a manifest and the label list."""

    kind: Literal["preprocess"] = "preprocess"
    input: dict[Name, str] | str
    model: str | None = None
    text_column: str = "text"
    label_column: str | None = "label"
    drop_labels: list[str] = []
    max_length: int = Field(default=128, ge=4, le=8192)
    entrypoint: Entrypoint | None = None
    hyperparameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _model_or_code(self) -> Preprocess:
        if self.model is None and self.entrypoint is None:
            raise ValueError("preprocess needs a model (whose tokenizer is used) or an entrypoint of your own")
        return self


class Train(WorkloadBase):
    """Fine-tune a pretrained model over data-parallel shards with Ray Train."""

    kind: Literal["train"] = "train"
    input: str | None = None
    model: str | None = None
    task: Literal["text-classification"] = "text-classification"
    precision: Precision = "fp32"
    checkpoint_every: Duration = 30.0
    entrypoint: Entrypoint | None = None
    hyperparameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _model_or_code(self) -> Train:
        if self.entrypoint is None:
            if self.model is None or self.input is None:
                raise ValueError("train needs input and model, or an entrypoint of your own")
            _check_hyperparameters(TextClassification, self.hyperparameters)
        return self

    @property
    def text_classification(self) -> TextClassification:
        """The built-in trainer's hyper-parameters, checked."""
        return TextClassification.model_validate(self.hyperparameters)


class BatchInfer(WorkloadBase):
    """Predict every row of a table with replicas on one or several device types at once. With `label_column` the
    predictions are compared with the labels and a report is written: that is how a model is evaluated."""

    kind: Literal["batch-infer"] = "batch-infer"
    input: str
    model: str | None = None
    text_column: str = "text"
    label_column: str | None = None
    drop_labels: list[str] = []
    max_rows: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1, le=65536)
    max_length: int = Field(default=128, ge=4, le=8192)
    precision: Precision = "fp32"
    entrypoint: Entrypoint | None = None
    hyperparameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _model_or_code(self) -> BatchInfer:
        if self.model is None and self.entrypoint is None:
            raise ValueError("batch-infer needs a model or an entrypoint of your own")
        return self


class Command(WorkloadBase):
    """Run a shell command on one node; or, with `items`, a command or the user's own function once for each item, on
    workers that stay."""

    kind: Literal["command"] = "command"
    command: str | None = Field(default=None, min_length=1)
    input: dict[Name, str] | str | None = None
    items: Items | None = None
    entrypoint: Entrypoint | None = None
    item_retries: int = Field(default=1, ge=0, le=100)
    item_timeout: Duration | None = None
    max_failed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _what_to_run(self) -> Command:
        if self.command is None and self.entrypoint is None and self.items is None:
            missing = InitErrorDetails(type="missing", loc=("command",), input={})
            raise ValidationError.from_exception_data("Command", [missing])
        if (self.command is None) == (self.entrypoint is None):
            raise ValueError("command needs either a command or, with items, an entrypoint of your own")
        given = self.model_fields_set & {"entrypoint", "item_retries", "item_timeout", "max_failed"}
        changed = {name for name in given if getattr(self, name) != type(self).model_fields[name].default}
        if self.items is None and changed:
            raise ValueError(f"{sorted(changed)[0]} is for a command with items")
        if self.entrypoint is not None and self.item_timeout is not None:
            raise ValueError("item_timeout is for a shell command: a function cannot be ended from outside")
        return self


class Benchmark(WorkloadBase):
    """Measure the devices it is given: matrix products, copies, launches, all-reduce. `raywise calibrate` runs it."""

    kind: Literal["benchmark"] = "benchmark"


class Serve(WorkloadBase):
    """Replicas of a model behind an HTTP endpoint. Not yet runnable: refused at submission."""

    kind: Literal["serve"] = "serve"
    model: str | None = None
    entrypoint: Entrypoint | None = None


WorkloadSpec = Annotated[Preprocess | Train | BatchInfer | Serve | Command | Benchmark, Field(discriminator="kind")]


class Pipeline(Model):
    """Several workloads with `needs` between them. Fields given here are the defaults of every step."""

    kind: Literal["pipeline"] = "pipeline"
    name: Name
    params: dict[str, str | int | float | bool] = {}
    objective: Objective = "balanced"
    deadline: Duration | None = None
    budget_usd: float | None = Field(default=None, gt=0)
    priority: int = Field(default=0, ge=-1000, le=1000)
    queue: Name = "default"
    steps: list[WorkloadSpec] = Field(min_length=1, max_length=MAX_STEPS)

    @field_validator("steps")
    @classmethod
    def _unique_names(cls, steps: list[WorkloadSpec]) -> list[WorkloadSpec]:
        names = [step.name for step in steps]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"two steps have the same name: {', '.join(doubles)}")
        return steps
