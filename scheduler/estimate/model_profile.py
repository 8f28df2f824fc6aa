"""Counts a model's parameters, FLOPs and activation bytes on torch's `meta` device: no weights, no memory.

A sequence of L tokens costs `a L + b L^2` (the second term is attention); two lengths give a and b.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from workloads.models import resolve_model

from .work import ModelProfile

_LENGTHS = (32, 128)


@lru_cache(maxsize=64)
def profile_model(reference: str) -> ModelProfile:
    """Profile an encoder or decoder of `transformers` by its config alone.

    Raises FileNotFoundError where the reference points nowhere, ValueError where the architecture cannot be built or
    traced; the message says which.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolve_model(reference))
    return profile_config(config)


def profile_config(config: Any) -> ModelProfile:
    """Profile the model that a `transformers` config describes."""
    import torch
    from transformers import AutoModel

    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    model.train()
    short, long = (_trace(model, length) for length in _LENGTHS)
    layers = getattr(config, "num_hidden_layers", 0)
    width = getattr(config, "hidden_size", 0)
    return ModelProfile(
        family=f"{config.model_type}-{layers}x{width}",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        forward_flops=_fit(short[0], long[0]),
        training_flops=_fit(short[1], long[1]),
        activation_bytes=_fit(short[2], long[2]),
        vocabulary_parameters=sum(
            module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding)
        ),
    )


def _fit(short: float, long: float) -> tuple[float, float]:
    """(a, b) of `a L + b L^2` through the values at both lengths."""
    near, far = _LENGTHS
    quadratic = (long / far - short / near) / (far - near)
    return short / near - quadratic * near, quadratic


def _trace(model: Any, length: int) -> tuple[float, float, float]:
    """(forward FLOPs, forward and backward FLOPs, bytes saved for backward) of one sequence."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros((1, length), dtype=torch.long, device="meta")
    saved: dict[int, Any] = {}  # by storage: views of one tensor count once; held, so that no id is used again
    parameters = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage
        return tensor

    with FlopCounterMode(display=False) as whole:
        with FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            hidden = model(input_ids=tokens).last_hidden_state
        hidden.sum().backward()
    model.zero_grad(set_to_none=True)
    return (
        float(forward.get_total_flops()),
        float(whole.get_total_flops()),
        float(sum(storage.nbytes() for storage in saved.values())),
    )
