"""Text classifiers: an encoder with mean pooling and a linear head, or what AutoModelForSequenceClassification loads.

AutoModelForSequenceClassification has no mean pooling, and sentence encoders are much better with it. So a mean-pooled
model is saved as a normal transformers encoder folder (`AutoModel` loads it) plus two files of ours: `head.safetensors`
(the linear layer) and `raywise.json` (task, pooling, labels, max_length).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import WorkloadFailed
from .text import model_folder, quiet

DESCRIPTION_FILE = "raywise.json"
HEAD_FILE = "head.safetensors"


class MeanPooledClassifier(nn.Module):  # type: ignore[misc]
    """Encoder, mean over the tokens that are not padding, dropout, linear."""

    def __init__(self, encoder: Any, labels: Sequence[str], dropout: float = 0.1) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its parameters would get no gradient, which DDP refuses
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, len(labels))
        self.labels = list(labels)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Logits [rows, labels]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.head(self.dropout(pooled))


class SequenceClassifier(nn.Module):  # type: ignore[misc]
    """Any model of AutoModelForSequenceClassification, with the same call as MeanPooledClassifier."""

    def __init__(self, model: Any, labels: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.labels = list(labels)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Logits [rows, labels]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def new_classifier(reference: str, labels: Sequence[str], pooling: str) -> nn.Module:
    """A pretrained encoder with a fresh head. Raises WorkloadFailed when the model cannot be loaded."""
    quiet()
    folder = model_folder(reference)
    from transformers import AutoModel, AutoModelForSequenceClassification

    try:
        if pooling == "mean":
            return MeanPooledClassifier(AutoModel.from_pretrained(folder, dtype=torch.float32), labels)
        names = dict(enumerate(labels))
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=len(labels),
            id2label=names,
            label2id={label: i for i, label in names.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
        return SequenceClassifier(model, labels)
    except (OSError, ValueError) as error:
        raise WorkloadFailed(f"model {reference} cannot be loaded: {str(error).splitlines()[0]}") from error


def save_classifier(model: nn.Module, tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write a folder that `load_classifier` reads."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    if isinstance(model, SequenceClassifier):
        model.model.save_pretrained(folder)
        return
    model.encoder.save_pretrained(folder)
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    save_file(head, str(folder / HEAD_FILE))
    description = {
        "task": "text-classification",
        "pooling": "mean",
        "labels": model.labels,
        "max_length": max_length,
    }
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1))


def load_classifier(reference: str) -> nn.Module:
    """A classifier ready to predict, on the CPU, with its `labels`. Raises WorkloadFailed when it is none."""
    quiet()
    folder = model_folder(reference)
    from transformers import AutoModel, AutoModelForSequenceClassification

    described = Path(folder) / DESCRIPTION_FILE
    try:
        if described.is_file():
            from safetensors.torch import load_file

            labels = json.loads(described.read_text())["labels"]
            model: nn.Module = MeanPooledClassifier(AutoModel.from_pretrained(folder, dtype=torch.float32), labels)
            model.head.load_state_dict(load_file(str(Path(folder) / HEAD_FILE)))
        else:
            inner, report = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
            if report["missing_keys"]:
                raise WorkloadFailed(f"model {reference} has no trained classification head; train it first")
            model = SequenceClassifier(inner, [inner.config.id2label[i] for i in range(inner.config.num_labels)])
    except (OSError, ValueError) as error:
        raise WorkloadFailed(f"model {reference} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.eval()
