"""The models that estimates are checked on can be built without weights, which is how the profiler sees them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "estimates" / "models.py"
LOGITS = {
    "minilm": (2, 4),
    "gpt2-small-ish": (2, 16, 8192),
    "convnet": (2, 10),
    "bert-base": (2, 4),
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("benchmark_models", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.MODELS


def test_every_model_of_the_registry_is_checked_here(models: dict[str, Any]) -> None:
    assert set(models) == set(LOGITS)


@pytest.mark.parametrize("name", LOGITS)
def test_a_model_builds_without_memory_and_gives_logits_or_a_loss(models: dict[str, Any], name: str) -> None:
    with FakeTensorMode():
        model = models[name].build()
        assert all(isinstance(parameter, FakeTensor) for parameter in model.parameters())
        assert tuple(model.eval()(**models[name].example(2, 16)).shape) == LOGITS[name]
        loss = model.train()(**models[name].example(2, 16))
        loss.backward()
    assert loss.shape == ()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_large_encoder_has_more_than_a_hundred_million_parameters(models: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = models["bert-base"].build()
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000_000
