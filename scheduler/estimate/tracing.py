"""Runs a model once on fake tensors (shapes without data) and counts what each operator computes, moves and keeps.

Fake tensors say they are on the CPU, so that autocast and attention take the real kernels' paths. Nothing is allocated:
the batch is a large prime, so an amount that grows with the batch is one that the prime divides. `model_profile` calls
this at several lengths and depths and turns the counts into polynomials.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .profile import OperatorClass
from .repeats import block_lists

Part = Literal["forward", "backward"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
Task = Literal["encoder", "causal-lm", "seq2seq", "auto"]
Key = tuple[str, OperatorClass, Part]
"""(operator, class, pass)."""
Quantity = Literal["flops", "moved_bytes", "launches", "peak_bytes", "saved_bytes", "boundary_bytes"]
FlatKey = tuple[Quantity, Key | None, Literal["constant", "per_sample"]]

PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061)
FREE = {"_unsafe_view", "detach", "lift_fresh", "alias", "t", "expand", "_reshape_alias", "device", "set_"}
CONVOLUTIONS = {"convolution", "_convolution", "convolution_backward", "convolution_overrideable", "mkldnn_convolution"}
PRODUCTS = {"mm", "addmm", "mv", "addmv", "dot", "_scaled_mm", "_int_mm", "_addmm_activation", "_grouped_mm"}
RECURRENT = {"mkldnn_rnn_layer": 1, "mkldnn_rnn_layer_backward": 2}
"""A whole LSTM layer in one call, and how many times its forward's FLOPs it takes."""
VECTOR_PRODUCTS = {"mv": 0, "addmv": 1, "dot": 0}
"""And which argument every element of is multiplied once."""
COUNTED: tuple[OperatorClass, ...] = ("matmul", "convolution", "attention")
BATCHED = {"bmm", "baddbmm"}
LOOKUPS = {"embedding", "index_select", "gather", "index", "take", "_embedding_bag", "_embedding_bag_forward_only"}
SCATTERS = {
    *("embedding_dense_backward", "scatter", "scatter_", "scatter_add", "scatter_add_", "index_add", "index_add_"),
    *(
        "index_put",
        "index_put_",
        "_index_put_impl_",
        "scatter_reduce",
        "masked_scatter",
        "_embedding_bag_dense_backward",
    ),
}
WRITE_ONLY = {"fill_", "zero_", "bernoulli_", "normal_", "uniform_", "random_", "exponential_"}
FLASH_CPU = "_scaled_dot_product_flash_attention_for_cpu"
MOST_LAUNCHES = 100_000
"""In one trace. A model that runs more loops over its tokens: tracing would take minutes, and an accelerator runs a
kernel of its own there."""
FLASH_BACKWARD = 2.5
"""FLOPs of fused attention's backward over its forward: five products in place of two (FlashAttention-2, sec. 3)."""


class TooManyOperators(ValueError):
    """Raised while tracing, at MOST_LAUNCHES."""


@dataclass(frozen=True)
class Variant:
    """How a model is run: what its counts depend on beside its shape."""

    training: bool
    precision: Precision = "fp32"
    checkpointing: bool = False
    accelerator: bool = True
    """Fused attention whatever the dropout, as on a GPU; otherwise the CPU's own choice."""
    task: Task = "encoder"

    @property
    def half(self) -> bool:
        """Whether products are of 16-bit numbers."""
        return self.precision not in ("fp32", "tf32")

    def mixed_precision(self) -> AbstractContextManager[Any]:
        """Training at 16 bits keeps 32-bit weights and casts as it goes."""
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.training and self.half else nullcontext()

    def attention(self) -> AbstractContextManager[Any]:
        """Fused attention as the device does it."""
        return AttentionPath(self.accelerator)


class AttentionPath(TorchFunctionMode):  # type: ignore[misc]
    """On a GPU the fused kernel does its own dropout; the CPU's takes none, and with dropout nothing is fused.

    While any such mode is on, torch.nn.Transformer leaves its own fused layers alone, which nothing could count.
    """

    def __init__(self, drops_out: bool) -> None:
        super().__init__()
        self.drops_out = drops_out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.drops_out and func is torch.nn.functional.scaled_dot_product_attention:
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


@dataclass
class Amount:
    """A number of bytes or FLOPs, in two parts."""

    constant: int = 0
    per_sample: int = 0

    def add(self, value: int, grows: bool, batch: int) -> None:
        """Add a count made with `batch` samples; `grows` says whether it may depend on them."""
        if grows and value and value % (batch * batch) == 0:
            raise ValueError("a cost grows with the square of the batch")
        if grows and value % batch == 0:
            self.per_sample += value // batch
        else:
            self.constant += value


@dataclass
class OperatorSum:
    """All calls of one operator in one pass."""

    flops: Amount = field(default_factory=Amount)
    moved_bytes: Amount = field(default_factory=Amount)
    launches: int = 0


@dataclass
class Counts:
    """One trace, at one length."""

    operators: dict[Key, OperatorSum] = field(default_factory=dict)
    timeline: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    """Bytes alive after each time that something is made or freed: (constant, per sample)."""
    peak_moment: int = 0
    """Where in `timeline` the most is alive."""
    saved_moment: int = 0
    """Where forward ends."""
    saved_bytes: Amount = field(default_factory=Amount)
    boundary_bytes: Amount = field(default_factory=Amount)

    def flat(self) -> dict[FlatKey, int]:
        """All sums under one kind of key, so that whole traces can be added and fitted."""
        found: dict[FlatKey, int] = {}

        def put(quantity: Quantity, key: Key | None, amount: Amount) -> None:
            found[quantity, key, "constant"] = amount.constant
            found[quantity, key, "per_sample"] = amount.per_sample

        for key, each in self.operators.items():
            put("flops", key, each.flops)
            put("moved_bytes", key, each.moved_bytes)
            put("launches", key, Amount(each.launches))
        put("saved_bytes", None, self.saved_bytes)
        put("boundary_bytes", None, self.boundary_bytes)
        return found


def elements(tensor: torch.Tensor) -> int:
    """Elements that memory holds: a broadcast dimension is read once."""
    stride = tensor.stride()
    if 0 not in stride:
        return int(tensor.numel())
    return int(prod(size for size, step in zip(tensor.shape, stride, strict=True) if step or not size))


def size_bytes(tensor: torch.Tensor) -> int:
    """Bytes that reading or writing a tensor moves."""
    return elements(tensor) * int(tensor.element_size())


def tensors(values: Any) -> list[torch.Tensor]:
    """All tensors in arguments or results, each once."""
    found = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}
    return list(found.values())


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """Sees every operator of forward and of backward. Enter it inside the fake mode."""

    def __init__(self, batch: int, model: torch.nn.Module) -> None:
        super().__init__()
        self.batch = batch
        self.part: Part = "forward"
        self.launches = 0
        self.operators: dict[Key, OperatorSum] = {}
        self.memory = Memory(batch, model)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[-1]
        if func.is_view or name in FREE:
            return out
        results = tensors(out)
        self.memory.made(results)
        if not name.startswith(("empty", "new_empty")):
            self._count(func, name, args, kwargs, out, results)
        return out

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, results: list[torch.Tensor]) -> None:
        inputs = tensors((args, kwargs))
        if not inputs and not results:
            return
        grows = any(self.grows(tensor) for tensor in inputs)
        kind = operator_class(name, inputs, results, self.grows)
        key = (name, kind, self.part)
        total = self.operators.setdefault(key, OperatorSum())
        total.launches += 1
        self.launches += 1
        if self.launches > MOST_LAUNCHES:
            raise TooManyOperators(f"one pass runs more than {MOST_LAUNCHES:,} operators (a loop over its tokens?)")
        flops = count_flops(func, name, args, kwargs, out)
        if kind in COUNTED and not flops and any(each.numel() for each in results):
            raise ValueError(f"nothing says how many FLOPs {name} takes")
        total.flops.add(flops, grows, self.batch)
        for tensor in moved(name, inputs, results):
            total.moved_bytes.add(size_bytes(tensor), True, self.batch)

    def grows(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor has something for each sample, be it the same for all."""
        return bool(tensor.numel() % self.batch == 0)


class Memory:
    """Bytes of operators' results that are alive, event by event."""

    def __init__(self, batch: int, model: torch.nn.Module) -> None:
        self.batch = batch
        self.events: list[tuple[int, int]] = []
        """(+1 or -1, number of the storage)."""
        self.sizes: list[int] = []
        self.alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.known = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
        self.ignored: set[int] = set()

    def made(self, results: Iterable[torch.Tensor]) -> None:
        """An operator returned these; a storage seen before is not new."""
        for tensor in results:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.alive or key in self.known:
                continue
            number = len(self.sizes)
            self.sizes.append(storage.nbytes())
            self.events.append((1, number))
            self.alive[key] = (number, weakref.ref(storage, self._freed(key, number)))

    def _freed(self, key: int, number: int) -> Callable[[Any], None]:
        def freed(_: Any) -> None:
            self.events.append((-1, number))
            self.alive.pop(key, None)

        return freed

    def ignore_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Gradients that stay are counted with the parameters, not here."""
        for parameter in parameters:
            if parameter.grad is not None:
                found = self.alive.get(parameter.grad.untyped_storage()._cdata)
                if found is not None:
                    self.ignored.add(found[0])

    def live(self) -> Amount:
        """What is alive now."""
        total = Amount()
        for number, _ in self.alive.values():
            total.add(self.sizes[number], True, self.batch)
        return total

    def timeline(self) -> tuple[list[tuple[int, int]], int]:
        """Bytes alive after each event, (constant, per sample), and the moment of the most."""
        grows = [size % self.batch == 0 for size in self.sizes]
        live, found = Amount(), [(0, 0)]
        for sign, number in self.events:
            if number not in self.ignored:
                live.add(sign * self.sizes[number], grows[number], self.batch)
            found.append((live.constant, live.per_sample))
        return found, max(range(len(found)), key=lambda i: found[i][0] + self.batch * found[i][1])


def operator_class(
    name: str, inputs: list[torch.Tensor], results: list[torch.Tensor], grows: Callable[[torch.Tensor], bool]
) -> OperatorClass:
    """Which rate an operator runs at."""
    if name in CONVOLUTIONS:
        return "convolution"
    if name in PRODUCTS or name in RECURRENT:
        return "matmul"
    if "attention" in name:
        return "attention"
    if name in BATCHED:
        return "attention" if all(grows(tensor) for tensor in [*inputs[-2:], *results]) else "matmul"
    if name in LOOKUPS or name in SCATTERS:
        return "embedding"
    return "elementwise"


def moved(name: str, inputs: list[torch.Tensor], results: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a kernel reads and writes, in whole tensors; a tensor that is read and written is there twice."""
    if name in WRITE_ONLY:
        return results
    if name in LOOKUPS:  # only the rows that are asked for are read, not the whole table
        return [*results, *results, *(each for each in inputs[1:] if not each.is_floating_point())]
    if name.startswith("nll_loss"):  # one entry of each row
        return [*(each for each in inputs if each.dim() < 2), *results]
    return [*inputs, *results]


def count_flops(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> int:
    """Multiplications and additions of matrix products and convolutions; 0 for all that only streams."""
    if name == FLASH_CPU:
        return attention_flops(args[0], args[1])
    if name == f"{FLASH_CPU}_backward":
        return int(FLASH_BACKWARD * attention_flops(args[1], args[2]))
    if name in RECURRENT:  # input [tokens, B, width], weights of the input and of the state
        weights = args[1].numel() + args[2].numel()
        return int(RECURRENT[name] * 2 * args[0].shape[0] * args[0].shape[1] * weights)
    if name == "_grouped_mm":
        return grouped_flops(args[0], args[1])
    if name in VECTOR_PRODUCTS:
        return int(2 * args[VECTOR_PRODUCTS[name]].numel())
    formula = flop_registry.get(getattr(func, "overloadpacket", None))
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


def grouped_flops(rows: torch.Tensor, weights: torch.Tensor) -> int:
    """A product for each group (expert): [rows, K] x [groups, K, N], or its gradients' [K, rows] x [rows, N]."""
    if rows.dim() == 3 and weights.dim() == 2:
        return int(2 * rows[0].numel() * weights.shape[-1])
    return int(2 * rows.numel() * weights.shape[-1])


def attention_flops(query: torch.Tensor, key: torch.Tensor) -> int:
    """Scores and values of one attention: query [B, H, Lq, d], key [B, H, Lk, d]."""
    batch, heads, length, width = query.shape
    return int(4 * batch * heads * length * key.shape[-2] * width)


def prime_for(model: torch.nn.Module) -> int:
    """A batch that divides no dimension of the model, so that only the batch can be divided by it."""
    sizes = {size for tensor in [*model.parameters(), *model.buffers()] for size in tensor.shape if size}
    return next(prime for prime in PRIMES if all(size % prime for size in sizes))


def trace(model: torch.nn.Module, inputs: Any, batch: int, variant: Variant) -> Counts:
    """One forward, and backward where `variant.training`; call under the fake mode.

    `inputs` are keywords (a mapping) or positions (a tuple) of `batch` samples.
    """
    recorder = Recorder(batch, model)
    recorder.memory.made(tensors(inputs))
    counts = Counts(recorder.operators)
    try:
        with recorder, variant.attention(), _watched(model, counts, batch):
            loss = _forward(model, inputs, variant)
            if variant.training:
                counts.saved_bytes = recorder.memory.live()
                counts.saved_moment = len(recorder.memory.events)
                recorder.part = "backward"
                _backward(loss)
        recorder.memory.ignore_gradients(model.parameters())
        counts.timeline, counts.peak_moment = recorder.memory.timeline()
        return counts
    finally:
        model.zero_grad(set_to_none=True)


def _backward(loss: torch.Tensor) -> None:
    """`loss.backward()` would leave the function mode, which the recomputation of checkpointed blocks needs too."""
    _engine_run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@contextmanager
def _watched(model: torch.nn.Module, counts: Counts, batch: int) -> Iterator[None]:
    """Note what the first repeated block hands on: its first tensor."""
    blocks = block_lists(model)
    if not blocks:
        yield
        return

    def note(_: Any, __: Any, out: Any) -> None:
        handed = next(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        counts.boundary_bytes = Amount()
        counts.boundary_bytes.add(size_bytes(handed), True, batch)

    handle = blocks[0][0].register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


def _forward(model: torch.nn.Module, inputs: Any, variant: Variant) -> Any:
    with variant.mixed_precision(), torch.set_grad_enabled(variant.training):
        out = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
        result = principal(out)
    if variant.training and result.dim():
        return result.sum()
    return result


def principal(out: Any) -> torch.Tensor:
    """The tensor that gradients start from: a loss, or the first floating-point result."""
    loss = out.get("loss") if isinstance(out, Mapping) else getattr(out, "loss", None)
    if isinstance(loss, torch.Tensor):
        return loss
    for leaf in tree_leaves(dict(out) if isinstance(out, Mapping) else out):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            return leaf
    raise ValueError("the model returns no floating-point tensor")
