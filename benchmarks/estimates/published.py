"""Our profiler beside published numbers: parameters, forward FLOPs, and a worked example in closed form.

python -m benchmarks.estimates.published

Numbers and formulas marked "recalled" were written down from memory of their source, not looked up again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scheduler.estimate.model_profile import profile_config, profile_module
from scheduler.estimate.profile import ModelProfile

SAMPLES = 4
PALM = "2 x weights + 4 x layers x attention width x tokens, for each token: PaLM (2022), appendix B, recalled"
KAPLAN = "2 x weights + 2 x layers x width x tokens (causal half of attention): Kaplan et al. (2020), table 1, recalled"
MEGATRON = "24 B s l h^2 (1 + s / 6h) + 2 B s h V: Narayanan et al. (2021), eq. 2, forward alone, recalled"
LAYERS, WIDTH, BATCH = 10, 512, 256
"""The worked example: a fully connected net."""


def table() -> list[dict[str, Any]]:
    """One row a number: model, quantity, ours, published, ratio, source."""
    return [*_transformers(), *_fully_connected()]


def _row(model: str, quantity: str, ours: float, published: float, source: str) -> dict[str, Any]:
    return {
        "model": model,
        "quantity": quantity,
        "ours": ours,
        "published": published,
        "ratio": ours / published,
        "source": source,
    }


def _transformers() -> Iterator[dict[str, Any]]:
    yield from _bert()
    yield from _gpt2()
    yield from _llama("Llama-3-8B shape", 8_030_261_248, 4096, 32, 14336, 32)
    yield from _llama("Llama-3-70B shape", 70_553_706_496, 8192, 80, 28672, 64)


def _forward(profile: ModelProfile, tokens: int) -> float:
    return float(profile.totals("forward").flops.at(SAMPLES, tokens)) / SAMPLES


def _megatron(tokens: int, layers: int, width: int, vocabulary: int) -> float:
    return 24 * tokens * layers * width**2 * (1 + tokens / (6 * width)) + 2 * tokens * width * vocabulary


def _bert() -> Iterator[dict[str, Any]]:
    from transformers import BertConfig

    name, profile = "BERT-base", profile_config(BertConfig(), training=False)
    source = "the size of its checkpoint with the pooler, recalled"
    yield _row(name, "parameters", profile.parameters, 109_482_240, source)
    source = "22.5e9 for BERT-base: TinyBERT (2020), table 1, recalled"
    yield _row(name, "forward FLOPs, 128 tokens", _forward(profile, 128), 22.5e9, source)
    yield _row(name, "forward FLOPs, 512 tokens", _forward(profile, 512), _megatron(512, 12, 768, 0), MEGATRON)


def _gpt2() -> Iterator[dict[str, Any]]:
    from transformers import GPT2Config

    name, profile = "GPT-2", profile_config(GPT2Config(), training=False, task="causal-lm")
    yield _row(name, "parameters", profile.parameters, 124_439_808, "the size of its checkpoint, recalled")
    ours = _forward(profile, 1024)
    yield _row(name, "forward FLOPs, 1,024 tokens", ours, _megatron(1024, 12, 768, 50257), MEGATRON)
    weights = profile.parameters - 1024 * 768  # the token table is also the last product
    kaplan = 1024 * (2 * weights + 2 * 12 * 768 * 1024)
    yield _row(name, "forward FLOPs, 1,024 tokens", ours, kaplan, KAPLAN)


def _llama(
    name: str, published: int, width: int, layers: int, inner: int, heads: int, vocabulary: int = 128_256
) -> Iterator[dict[str, Any]]:
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=8,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
    )
    profile = profile_config(config, training=False, precision="bf16", task="causal-lm")
    yield _row(name, "parameters", profile.parameters, published, "the size of its checkpoint, recalled")
    for tokens in (2048, 8192):
        weights = published - vocabulary * width  # looking up the token table multiplies nothing
        palm = tokens * (2 * weights + 4 * layers * width * tokens)
        yield _row(name, f"forward FLOPs, {tokens:,} tokens", _forward(profile, tokens), palm, PALM)


def _fully_connected() -> Iterator[dict[str, Any]]:
    """Ten square layers without bias: D = H = 512, N = 256."""
    name, own = "10 layers, 512 wide, batch 256", "closed form"
    forward = LAYERS * 2.0 * BATCH * WIDTH**2
    first = 2.0 * BATCH * WIDTH**2
    plain, chained = _net(False), _net(True)

    def at(volume: Any) -> float:
        return float(volume.at(BATCH, 1))

    backward = at(plain.totals("backward").flops)
    yield _row(name, "forward FLOPs", at(plain.totals("forward").flops), forward, f"{own}: layers x 2 N D^2")
    source = f"{own}: 2 x forward, less the first layer's input gradient"
    yield _row(name, "backward FLOPs", backward, 2 * forward - first, source)
    source = f"{own}: 2 x forward, where the input needs a gradient too"
    yield _row(name, "backward FLOPs, with input gradient", at(chained.totals("backward").flops), 2 * forward, source)
    weights = 4.0 * LAYERS * WIDTH**2
    yield _row(name, "parameter bytes", 4.0 * plain.parameters, weights, f"{own}: layers x 4 D^2")
    kept = 4.0 * LAYERS * BATCH * WIDTH
    yield _row(name, "activation bytes kept", at(plain.saved_bytes), kept, f"{own}: each layer's input, layers x 4 N D")
    source = f"{own}: one gradient for each weight"
    yield _row(name, "communication bytes (gradients)", 4.0 * plain.trainable, weights, source)


def _net(input_gradient: bool) -> ModelProfile:
    import torch
    from torch import nn

    return profile_module(
        lambda: nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))),
        lambda samples, _: (torch.zeros(samples, WIDTH, requires_grad=input_gradient),),
        family="fully-connected-10x512",
        tokens=None,
        training=True,
    )


def main() -> None:
    """Print the table."""
    for row in table():
        print(
            f"{row['model']:32} {row['quantity']:36} {row['ours']:20,.0f} {row['published']:20,.0f} "
            f"{row['ratio']:8.4f}  {row['source']}"
        )


if __name__ == "__main__":
    main()
