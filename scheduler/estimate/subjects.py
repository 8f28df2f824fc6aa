"""Models to be traced: from a `transformers` config, or a user's own module. Built under the fake mode by `build`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .repeats import block_lists
from .tracing import Variant

LONGEST = 2048
"""Tokens of the longest trace; longer contexts are extrapolated."""


class Initialising(TorchDispatchMode):  # type: ignore[misc]
    """While a model is built: drawing weights ends at once where it would be repeated until all of them are good."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype is torch.bool:
                return False
            raise


@dataclass(frozen=True)
class Subject:
    """What to trace, and on which inputs."""

    family: str
    build: Callable[[], torch.nn.Module]
    """Call under the fake mode; ready to run in the variant asked for."""
    example: Callable[[int, int], Any]
    """Inputs for (batch, tokens); call under the fake mode."""
    lengths: tuple[int, ...]
    """Three lengths to trace at, or one for a model whose inputs have none."""
    kv_bytes_per_token: float = 0.0


def config_subject(config: Any, variant: Variant) -> Subject:
    """The model that a `transformers` config describes. Raises ValueError where its inputs are unknown."""
    task = _task(config, variant.task)
    kind = _input_kind(config)
    return Subject(
        family=f"{config.model_type}-{config_value(config, 'num_hidden_layers')}x{config_value(config, 'hidden_size')}",
        build=lambda: _prepared(lambda: _new_model(config, task), variant),
        example=lambda batch, tokens: _cast(_inputs(config, kind, task, batch, tokens), variant),
        lengths=(1,) if kind == "pixel_values" else spread(_positions(config)),
        kv_bytes_per_token=0.0 if task == "encoder" else _kv_bytes(config, 2 if variant.half else 4),
    )


def module_subject(
    build: Callable[[], torch.nn.Module],
    example: Callable[[int, int], Any],
    family: str,
    tokens: tuple[int, ...] | None,
    variant: Variant,
) -> Subject:
    """A user's own module."""
    return Subject(
        family,
        build=lambda: _prepared(build, variant),
        example=lambda batch, length: _cast(example(batch, length), variant),
        lengths=tokens or (1,),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice that transformers logs while a model is built."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def spread(longest: int) -> tuple[int, ...]:
    """Three lengths up to the longest, or one where there is no room for three."""
    return (longest // 16, longest // 4, longest) if longest >= 16 else (longest,)


def config_value(config: Any, name: str, default: Any = 0) -> Any:
    """A field of the config, or of its text part."""
    value = getattr(config, name, None)
    if value is None and hasattr(config, "get_text_config"):
        value = getattr(config.get_text_config(), name, None)
    return default if value is None else value


def _task(config: Any, task: str) -> str:
    if task != "auto":
        return task
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    names = getattr(config, "architectures", None) or []
    return "causal-lm" if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) else "encoder"


def _new_model(config: Any, task: str) -> torch.nn.Module:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = {"causal-lm": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}.get(task, AutoModel)
    model = kind.from_config(config, dtype=torch.float32)
    if task == "encoder" and getattr(config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def _prepared(build: Callable[[], torch.nn.Module], variant: Variant) -> torch.nn.Module:
    """Ready to run in a variant."""
    with Initialising():
        model = build()
    model.train(variant.training)
    if not variant.training and variant.half:
        _to_16_bit(model)
    if variant.training and variant.checkpointing:
        _checkpoint(model)
    return model


def _to_16_bit(model: torch.nn.Module) -> None:
    """`model.to(torch.bfloat16)`, which fake parameters refuse; what is shared stays shared."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, each in [*module._parameters.items(), *module._buffers.items()]:
            if each is None or not each.is_floating_point():
                continue
            if id(each) not in made:
                half = each.detach().to(torch.bfloat16)
                made[id(each)] = torch.nn.Parameter(half) if isinstance(each, torch.nn.Parameter) else half
            setattr(module, name, made[id(each)])


def _cast(inputs: Any, variant: Variant) -> Any:
    """Inputs as the weights are: 16-bit inference takes 16-bit images."""
    if variant.training or not variant.half:
        return inputs

    def cast(leaf: Any) -> Any:
        floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return leaf.to(torch.bfloat16) if floating else leaf

    return tree_map(cast, inputs)


def _checkpoint(model: torch.nn.Module) -> None:
    options = {"use_reentrant": False, "preserve_rng_state": False}
    if getattr(model, "supports_gradient_checkpointing", False):
        name = "activation_checkpointing_enable"  # the newer of two names for one function
        getattr(model, name, model.gradient_checkpointing_enable)(options)
        return
    lists = block_lists(model)
    if not lists:
        raise ValueError("gradient checkpointing needs repeated blocks, and the model has none")
    for blocks in lists:
        for block in blocks:
            block.forward = _checkpointed(block.forward, options)


def _checkpointed(forward: Any, options: dict[str, bool]) -> Any:
    from torch.utils.checkpoint import checkpoint

    return lambda *args, **kwargs: checkpoint(forward, *args, **options, **kwargs)


def _input_kind(config: Any) -> str:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    kind = getattr(MODEL_MAPPING.get(type(config), None), "main_input_name", "input_ids")
    if kind not in ("input_ids", "pixel_values"):
        raise ValueError(f"{config.model_type} takes {kind}, not tokens or images: give a module and an example")
    return str(kind)


def _inputs(config: Any, kind: str, task: str, batch: int, tokens: int) -> dict[str, Any]:
    if kind == "pixel_values":
        size = getattr(config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(batch, getattr(config, "num_channels", 3), height, width)}
    ids = torch.zeros((batch, tokens), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if task != "encoder":
        inputs |= {"labels": ids, "use_cache": False}
    elif config_value(config, "use_cache", None) is not None:
        inputs["use_cache"] = False
    return inputs


def _positions(config: Any) -> int:
    names = ("max_position_embeddings", "n_positions", "max_source_positions", "max_seq_len")
    limits = [value for name in names if isinstance(value := config_value(config, name, None), int) and value > 0]
    return min([LONGEST, *limits])


def _kv_bytes(config: Any, width: int) -> float:
    heads = config_value(config, "num_attention_heads") or 1
    shared = config_value(config, "num_key_value_heads") or heads
    size = config_value(config, "head_dim") or config_value(config, "hidden_size") // heads
    return float(2 * config_value(config, "num_hidden_layers") * shared * size * width)
