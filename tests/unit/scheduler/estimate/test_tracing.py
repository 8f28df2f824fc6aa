"""Counting on fake tensors: few blocks stand for many, batch and length are exact, memory is what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scheduler.estimate import repeats, tracing
from scheduler.estimate.fitting import count_model
from scheduler.estimate.model_profile import Traced, Untraceable, trace_config, trace_module, use_cache
from scheduler.estimate.profile import Volume
from scheduler.estimate.subjects import config_subject
from scheduler.estimate.tracing import (
    Amount,
    Counts,
    Variant,
    elements,
    grouped_flops,
    operator_class,
    prime_for,
    trace,
)

WIDTH, VOCABULARY = 32, 100
TRAIN = Variant(training=True)
DECODE = Variant(training=True, task="causal-lm")
SMALL = {
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    use_cache(None)


def config(name: str, layers: int, **changes: Any) -> Any:
    import transformers

    if name == "GPT2Config":
        sizes = {"n_embd": WIDTH, "n_layer": layers, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64}
        return transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **changes)
    if name == "T5Config":
        sizes = {"d_model": WIDTH, "d_ff": 64, "d_kv": 8, "num_heads": 4, "vocab_size": VOCABULARY}
        return transformers.T5Config(**sizes, num_layers=layers, decoder_start_token_id=0, **changes)
    sizes = SMALL | {"num_hidden_layers": layers} | changes
    if name == "BertConfig":
        sizes = {key: value for key, value in sizes.items() if key not in ("head_dim", "num_key_value_heads")}
    return getattr(transformers, name)(**sizes)


def whole(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Traced]) -> Traced:
    """The same trace, with every block run."""
    monkeypatch.setattr(repeats, "find_repeats", lambda model: [])
    use_cache(None)
    return make()


@pytest.mark.parametrize(
    ("name", "layers", "changes", "variant"),
    [
        pytest.param("BertConfig", 8, {}, Variant(True, "bf16", True), id="a checkpointed encoder in mixed precision"),
        pytest.param("BertConfig", 8, {}, Variant(False, "bf16"), id="an encoder that only predicts"),
        pytest.param("GPT2Config", 8, {}, Variant(True, accelerator=False, task="causal-lm"), id="GPT-2 on a CPU"),
        pytest.param("LlamaConfig", 9, {}, DECODE, id="grouped-query attention"),
        pytest.param(
            "T5Config", 10, {}, Variant(True, task="seq2seq"), id="two stacks, the first block of each special"
        ),
        pytest.param("Gemma2Config", 10, {"sliding_window": 8}, DECODE, id="sliding and full attention in turns"),
        pytest.param(
            "Gemma3TextConfig", 38, {"sliding_window": 8}, Variant(False, task="causal-lm"), id="a period of six"
        ),
    ],
)
def test_few_blocks_stand_for_all(name: str, layers: int, changes: dict[str, Any], variant: Variant) -> None:
    subject = config_subject(config(name, layers, **changes), variant)
    with FakeTensorMode():
        model = subject.build()
        found = repeats.find_repeats(model)
        assert found, "nothing to cut: the comparison would prove nothing"
        cut, full = (count_model(model, each, subject.example, (24,), 1009, variant) for each in (found, []))
    assert cut == full


class Stack(nn.Module):
    """A user's model: blocks of different widths inside, and one that loops over a count of its own."""

    def __init__(self, inner: list[int], counted: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, size), nn.GELU(), nn.Linear(size, WIDTH)) for size in inner
        )
        self.count = len(inner) if counted else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.count or len(self.blocks)):
            x = x + self.blocks[i](x)
        return x


@pytest.mark.parametrize(
    ("inner", "first", "period", "count"),
    [
        ([64] * 9, 0, 1, 9),
        ([64, 48] * 5, 0, 2, 5),
        ([48, 48, *[64] * 7], 2, 1, 7),
        ([*[64] * 7, 48], 0, 1, 7),
        ([64, 48, 48] * 4 + [64], 0, 3, 4),
    ],
    ids=["all alike", "two in turns", "a special head", "a special tail", "a period of three and a rest"],
)
def test_what_repeats(inner: list[int], first: int, period: int, count: int) -> None:
    run = repeats.longest_run(Stack(inner).blocks)
    assert run is not None
    assert (run.first, run.period, run.count) == (first, period, count)
    with run.cut(2):
        assert len(run.blocks) == len(inner) - (count - 2) * period
    assert len(run.blocks) == len(inner)


def test_frozen_blocks_are_not_like_the_others() -> None:
    model = Stack([64] * 10)
    model.blocks[:5].requires_grad_(False)
    run = repeats.longest_run(model.blocks)
    assert run is not None and (run.first, run.count) == (0, 5)


@pytest.mark.parametrize("counted", [False, True], ids=["iterates over its blocks", "counts its blocks itself"])
def test_a_user_module_is_cut_or_traced_whole(monkeypatch: pytest.MonkeyPatch, counted: bool) -> None:
    def make() -> Traced:
        return trace_module(
            lambda: Stack([64] * 12, counted),
            lambda samples, tokens: (torch.zeros(samples, tokens, WIDTH),),
            family="stack",
            tokens=(4, 8, 16),
            variant=TRAIN,
        )

    cut = make()
    assert cut == whole(monkeypatch, make)
    assert cut.profile.totals("forward").flops.per_sample == (0.0, 12 * 2 * 2 * WIDTH * 64.0, 0.0)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("BertConfig", Variant(True, accelerator=False)),
        ("LlamaConfig", Variant(True, "bf16", True, task="causal-lm")),
        ("LlamaConfig", Variant(False, "bf16", task="causal-lm")),
        ("T5Config", Variant(True, task="seq2seq")),
    ],
    ids=["unfused attention", "mixed and checkpointed", "16-bit inference", "encoder and decoder"],
)
def test_a_profile_says_what_a_direct_trace_says(name: str, variant: Variant) -> None:
    """At a batch and a length that no trace of the profile had."""
    given, samples, tokens = config(name, 3), 5 * 1013, 48
    traced = trace_config(given, variant)
    subject = config_subject(given, variant)
    with FakeTensorMode():
        direct = trace(subject.build(), subject.example(samples, tokens), samples, variant)
    for part in ("forward", "backward"):
        found = traced.profile.totals(part)
        mine = [each for key, each in direct.operators.items() if key[2] == part]
        assert found.flops.at(samples, tokens) == total(mine, "flops", samples)
        assert found.moved_bytes.at(samples, tokens) == pytest.approx(total(mine, "moved_bytes", samples), rel=0.01)
        assert found.launches == sum(each.launches for each in mine)
    peak = size(Amount(*direct.timeline[direct.peak_moment]), samples)
    assert peak <= traced.profile.activation_bytes.at(samples, tokens) <= 1.05 * peak
    for volume, amount in [
        (traced.profile.saved_bytes, direct.saved_bytes),
        (traced.profile.boundary_bytes, direct.boundary_bytes),
    ]:
        assert volume.at(samples, tokens) == pytest.approx(size(amount, samples), rel=0.01)


def total(sums: list[Any], name: str, samples: int) -> int:
    return sum(size(getattr(each, name), samples) for each in sums)


def size(amount: Amount, samples: int) -> int:
    return amount.constant + samples * amount.per_sample


def traced_block(module: nn.Module, *shape: int, training: bool = True) -> Counts:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(torch.zeros(1)).new_zeros((1009, *shape))
        with torch.device("cpu"):
            module = rebuilt(module)
        return trace(module, (fake,), 1009, Variant(training))


def rebuilt(module: nn.Module) -> nn.Module:
    """A copy with fake weights; called under the fake mode."""
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None:
                child._parameters[name] = nn.Parameter(torch.empty(parameter.shape))
    return module


def saved_by_hooks(module: nn.Module, *shape: int) -> int:
    """Bytes that autograd really keeps for one sample, parameters apart."""
    storages: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    weights = {each.untyped_storage().data_ptr() for each in module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(torch.rand(1, *shape))
    assert result.requires_grad
    return sum(each.nbytes() for pointer, each in storages.items() if pointer not in weights)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh()), (8,)),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2)), (3, 10, 10)),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.1), nn.Softmax(-1)), (5, 8)),
    ],
    ids=["fully connected", "convolution", "norm and dropout"],
)
def test_what_is_kept_for_backward_is_what_autograd_keeps(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    counts = traced_block(make(), *shape)
    real = saved_by_hooks(make(), *shape)
    kept = counts.saved_bytes.per_sample + counts.saved_bytes.constant
    assert kept == pytest.approx(real, abs=64)  # a few scalars; storage that a batch of one shares out differently
    assert counts.timeline[counts.peak_moment][1] >= counts.saved_bytes.per_sample


def test_all_activations_are_gone_after_backward() -> None:
    """The live bytes are those of storages that exist: else the peak would only ever grow."""
    chain = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(6)))
    counts = traced_block(chain, WIDTH)
    values = 4 * WIDTH
    assert counts.saved_bytes.per_sample == 7 * values  # the input and each ReLU's result
    assert counts.timeline[counts.peak_moment][1] <= 11 * values
    predicting = traced_block(chain, WIDTH, training=False)
    assert predicting.timeline[predicting.peak_moment][1] <= 4 * values


@pytest.mark.parametrize(
    ("name", "inputs", "results", "expected"),
    [
        ("convolution", [(1009, 3)], [(1009, 4)], "convolution"),
        ("addmm", [(8,), (1009, 8), (8, 8)], [(1009, 8)], "matmul"),
        ("bmm", [(1009, 4, 8), (1009, 8, 4)], [(1009, 4, 4)], "attention"),
        ("bmm", [(2, 1009, 8), (2, 8, 4)], [(2, 1009, 4)], "matmul"),
        ("bmm", [(2, 8, 1009), (2, 1009, 4)], [(2, 8, 4)], "matmul"),
        ("_scaled_dot_product_flash_attention_for_cpu", [(1009, 2, 4, 8)], [(1009, 2, 4, 8)], "attention"),
        ("embedding_dense_backward", [(1009, 8)], [(100, 8)], "embedding"),
        ("gelu", [(1009, 8)], [(1009, 8)], "elementwise"),
    ],
    ids=[
        "a convolution",
        "a linear layer",
        "a product of two activations",
        "a product with a weight for each expert",
        "the gradient of such a weight",
        "fused attention",
        "the gradient of a table",
        "an activation function",
    ],
)
def test_class_of_an_operator(name: str, inputs: list[Any], results: list[Any], expected: str) -> None:
    made = [[torch.empty(shape, device="meta") for shape in shapes] for shapes in (inputs, results)]
    assert operator_class(name, made[0], made[1], lambda tensor: tensor.numel() % 1009 == 0) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [((6, 4), (3, 4, 5), 2 * 6 * 4 * 5), ((4, 6), (6, 5), 2 * 6 * 4 * 5), ((3, 5, 4), (4, 6), 2 * 6 * 4 * 5)],
    ids=["each row by its expert's weights", "the weights' gradient", "experts first"],
)
def test_flops_of_a_mixture_of_experts(left: tuple[int, ...], right: tuple[int, ...], expected: int) -> None:
    assert grouped_flops(torch.empty(left), torch.empty(right)) == expected


def test_a_broadcast_dimension_is_read_once() -> None:
    assert elements(torch.empty(1, 5).expand(7, 5)) == 5
    assert elements(torch.empty(7, 5)) == 35


def test_an_amount_knows_its_batch() -> None:
    amount = Amount()
    amount.add(3 * 1009, True, 1009)
    amount.add(4, True, 1009)
    amount.add(1009, False, 1009)
    assert amount == Amount(constant=4 + 1009, per_sample=3)
    with pytest.raises(ValueError, match="square of the batch"):
        amount.add(1009 * 1009, True, 1009)


def test_the_batch_divides_nothing_of_the_model() -> None:
    assert prime_for(nn.Linear(8, 8)) == 1009
    assert prime_for(nn.Linear(2 * 1009, 1013)) == 1019


def test_a_table_is_not_read_whole_but_its_gradient_is_written_whole() -> None:
    rows = 1_000_000

    def example(samples: int, tokens: int) -> tuple[Any, ...]:
        return (torch.zeros((samples, tokens), dtype=torch.long),)

    found = trace_module(lambda: nn.Embedding(rows, 4), example, family="e", tokens=(4, 8, 16), variant=TRAIN).profile
    assert found.forward["embedding"].moved_bytes == Volume((0.0, 0.0, 0.0), (0.0, 2 * 16.0 + 8, 0.0))
    assert found.backward["embedding"].moved_bytes.constant == (
        16.0 * rows + 4,
        0.0,
        0.0,
    )  # and the loss's own gradient


class Item(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x * 2 if x.sum().item() > 0 else x


class Contrast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x @ x.T


class Wordless(nn.Module):
    def forward(self, x: torch.Tensor) -> str:
        return str(x.shape)


class Steps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while True:
            x = x + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Steps, "runs more than 200 operators"),
        (Item, "what it runs depends on its data"),
        (Contrast, "square of the batch"),
        (Wordless, "returns no floating-point tensor"),
    ],
    ids=["a loop", "data decides", "every sample with every other", "no result"],
)
def test_a_module_that_cannot_be_traced_says_why(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module], message: str
) -> None:
    monkeypatch.setattr(tracing, "MOST_LAUNCHES", 200)
    with pytest.raises(Untraceable, match=message) as caught:
        trace_module(make, lambda samples, _: (torch.zeros(samples, 8),), family="m", tokens=None, variant=TRAIN)
    assert "\n" not in str(caught.value)
