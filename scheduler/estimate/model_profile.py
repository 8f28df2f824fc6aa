"""What a model costs, from its config or its code alone: built and traced on fake tensors, no weights, no memory.

Counts at three lengths give exact polynomials in the length; counts with two and with three of the repeated blocks give
any depth. `scheduler.admission` asks once per model; everything after reads the `ModelProfile`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack

from pydantic import TypeAdapter

from workloads.models import resolve_model

from .profile import Cost, ModelProfile, OperatorClass, Volume
from .repeats import block_lists, block_sizes

if TYPE_CHECKING:
    from torch import nn

    from .subjects import Subject
    from .tracing import Key, Precision, Quantity, Task, Variant


KEPT_IN_MEMORY = 256
VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "id2label", "label2id"}
"""Fields of a config that change no cost."""


class Untraceable(ValueError):
    """A model that cannot be traced, with the reason in one line."""


class Options(TypedDict, total=False):
    """The fields of `tracing.Variant`, which has their defaults, as keywords: that module needs torch."""

    training: Required[bool]
    precision: Precision
    checkpointing: bool
    accelerator: bool
    task: Task


@dataclass(frozen=True)
class Operator:
    """One operator in one pass, any batch and length."""

    name: str
    operator_class: OperatorClass
    part: Literal["forward", "backward"]
    cost: Cost


@dataclass(frozen=True)
class OperatorCost:
    """One operator in one pass over one batch."""

    name: str
    operator_class: OperatorClass
    part: Literal["forward", "backward"]
    flops: float
    moved_bytes: float
    launches: float


@dataclass(frozen=True)
class Traced:
    """A profile and the operators it is the sum of."""

    profile: ModelProfile
    operators: tuple[Operator, ...]

    def top(self, samples: float, tokens: float) -> list[OperatorCost]:
        """All operators of a batch of `samples` of `tokens` each, most FLOPs first, then most bytes."""
        found = [
            OperatorCost(
                each.name,
                each.operator_class,
                each.part,
                float(each.cost.flops.at(samples, tokens)),
                float(each.cost.moved_bytes.at(samples, tokens)),
                each.cost.launches,
            )
            for each in self.operators
        ]
        return sorted(found, key=lambda each: (-each.flops, -each.moved_bytes))


def profile_model(reference: str, **options: Unpack[Options]) -> ModelProfile:
    """Profile a `transformers` model by its config alone.

    Raises FileNotFoundError where the reference points nowhere, Untraceable where the architecture cannot be built or
    traced; the message says which.
    """
    return profile_config(read_config(reference), **options)


def profile_config(config: Any, **options: Unpack[Options]) -> ModelProfile:
    """Profile the model that a `transformers` config describes. Raises Untraceable."""
    return trace_config(config, _variant(**options)).profile


def profile_module(
    build: Callable[[], nn.Module],
    example: Callable[[int, int], Any],
    *,
    family: str,
    tokens: tuple[int, ...] | None,
    **options: Unpack[Options],
) -> ModelProfile:
    """Profile a user's module.

    `build` makes it and `example(samples, tokens)` its inputs, keywords as a dictionary or positions as a tuple; both
    are called on fake tensors. `tokens` are three lengths to trace at, None for inputs that have none. Training starts
    from the result's `loss`, or from the sum of its first tensor. Raises Untraceable.
    """
    return trace_module(build, example, family=family, tokens=tokens, variant=_variant(**options)).profile


def top_operators(reference: str, *, samples: float, tokens: float, **options: Unpack[Options]) -> list[OperatorCost]:
    """What each operator of a model does in a batch, most FLOPs first. Raises as `profile_model` does."""
    return trace_config(read_config(reference), _variant(**options)).top(samples, tokens)


def read_config(reference: str) -> Any:
    """A model's config. Raises FileNotFoundError where there is no model, Untraceable where it cannot be read."""
    from transformers import AutoConfig

    place = resolve_model(reference)
    with _reasons():
        return AutoConfig.from_pretrained(place)


def trace_config(config: Any, variant: Variant) -> Traced:
    """The profile and the operators of the model that a `transformers` config describes; cached. Raises Untraceable."""
    from .subjects import config_subject, quiet

    with _reasons():
        key = cache_key(config.to_dict() | {"attention": str(config._attn_implementation)}, variant)
        found = _remembered(key)
        if found is None:
            with quiet():
                found = _traced(config_subject(config, variant), variant)
            _remember(key, found)
        return found


def trace_module(
    build: Callable[[], nn.Module],
    example: Callable[[int, int], Any],
    *,
    family: str,
    tokens: tuple[int, ...] | None,
    variant: Variant,
) -> Traced:
    """The profile and the operators of a user's module; not cached, for code has no hash. Raises Untraceable."""
    from .subjects import module_subject

    with _reasons():
        return _traced(module_subject(build, example, family, tokens, variant), variant)


def _variant(**options: Unpack[Options]) -> Variant:
    from .tracing import Variant

    return Variant(**options)


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a model raises while it is built or traced, as Untraceable in one line."""
    try:
        yield
    except (Untraceable, FileNotFoundError):
        raise
    except Exception as error:  # any code of any model
        raise Untraceable(reason(error)) from error


def reason(error: Exception) -> str:
    """Why a model could not be traced, in one line."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else "no message"
    kind = type(error).__name__
    if kind in ("DataDependentOutputException", "DynamicOutputShapeException"):
        return f"what it runs depends on its data ({first})"
    if kind in ("UnsupportedOperatorException", "UnsupportedFakeTensorException", "NotImplementedError"):
        return f"an operator cannot be run without data ({first})"
    return first if isinstance(error, ValueError) else f"{kind}: {first}"


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Fake tensors log the traceback of what they cannot run; the reason is raised anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _traced(subject: Subject, variant: Variant) -> Traced:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from .fitting import count_model
    from .repeats import find_repeats
    from .tracing import prime_for

    with _without_tracebacks(), FakeTensorMode(allow_non_fake_inputs=True):
        model = subject.build()
        repeats = find_repeats(model)
        prime = prime_for(model)
        volumes = count_model(model, repeats, subject.example, subject.lengths, prime, variant)
    operators = tuple(_operators(volumes))
    return Traced(_profile(subject, variant, model, volumes, operators), operators)


def _operators(volumes: Mapping[tuple[Quantity, Key | None], Volume]) -> Iterator[Operator]:
    for (quantity, key), launches in volumes.items():
        if quantity == "launches" and key is not None:
            cost = Cost(volumes["flops", key], volumes["moved_bytes", key], max(0.0, launches.constant[0]))
            yield Operator(key[0], key[1], key[2], cost)


def _profile(
    subject: Subject,
    variant: Variant,
    model: Any,
    volumes: Mapping[tuple[Quantity, Key | None], Volume],
    operators: Sequence[Operator],
) -> ModelProfile:
    parameters = list(model.parameters())  # each once, however many modules share it
    blocks = [size for each in block_lists(model) for size in block_sizes(each)]
    return ModelProfile(
        family=subject.family,
        parameters=sum(each.numel() for each in parameters),
        trainable=sum(each.numel() for each in parameters if each.requires_grad) if variant.training else 0,
        precision="16-bit" if variant.half else "fp32",
        forward=_by_class(operators, "forward"),
        backward=_by_class(operators, "backward"),
        activation_bytes=volumes["peak_bytes", None],
        saved_bytes=volumes["saved_bytes", None],
        boundary_bytes=volumes["boundary_bytes", None],
        block_parameters=max(blocks, default=0),
        blocks=len(blocks),
        kv_bytes_per_token=subject.kv_bytes_per_token,
        checkpointed=variant.training and variant.checkpointing,
    )


def _by_class(operators: Sequence[Operator], part: str) -> dict[OperatorClass, Cost]:
    found: dict[OperatorClass, Cost] = {}
    for each in operators:
        if each.part == part:
            found[each.operator_class] = found.get(each.operator_class, Cost()) + each.cost
    return found


_memory: OrderedDict[str, Traced] = OrderedDict()
_folder: list[Path | None] = [None]


def use_cache(folder: Path | None) -> None:
    """Keep profiles in this folder too, across processes; None (as at the start): in memory only."""
    _folder[0] = folder
    _memory.clear()


def cache_key(config: Mapping[str, Any], variant: Variant) -> str:
    """What a profile depends on: the config, the variant, the libraries and the code that counts."""
    import torch
    import transformers

    kept = {name: value for name, value in config.items() if name not in VOLATILE}
    parts = [json.dumps(kept, sort_keys=True, default=str), repr(variant), torch.__version__, transformers.__version__]
    digest = hashlib.sha256("\n".join(parts).encode())
    for name in ("fitting", "model_profile", "profile", "repeats", "subjects", "tracing"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def _remembered(key: str) -> Traced | None:
    if key in _memory:
        with suppress(KeyError):
            _memory.move_to_end(key)
            return _memory[key]
    if _folder[0] is None:
        return None
    try:
        found = _stored_form().validate_json((_folder[0] / f"{key}.json").read_bytes())
    except (OSError, ValueError):  # not there, or damaged: it is traced again and written again
        return None
    _keep(key, found)
    return found


def _remember(key: str, traced: Traced) -> None:
    _keep(key, traced)
    if _folder[0] is None:
        return
    draft = _folder[0] / f".{key}.{os.getpid()}.{threading.get_ident()}.partial"
    with suppress(OSError):  # a full disk costs the next process a second, not this one its answer
        _folder[0].mkdir(parents=True, exist_ok=True)
        draft.write_bytes(_stored_form().dump_json(traced))
        draft.replace(_folder[0] / f"{key}.json")


def _keep(key: str, traced: Traced) -> None:
    _memory[key] = traced
    if len(_memory) > KEPT_IN_MEMORY:
        with suppress(KeyError):  # another thread was faster
            _memory.popitem(last=False)


@lru_cache(maxsize=1)
def _stored_form() -> TypeAdapter[Traced]:
    return TypeAdapter(Traced)
