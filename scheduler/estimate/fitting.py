"""From a few traces to polynomials: exact in the length (three lengths), extrapolated in the depth (two depths)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import torch

from .profile import Volume
from .repeats import Repeat
from .tracing import Counts, FlatKey, Key, Quantity, TooManyOperators, Variant, trace

Polynomial = tuple[Fraction, Fraction, Fraction]
"""Coefficients of 1, L, L^2."""
Fitted = dict[FlatKey, Polynomial]
ZERO: Polynomial = (Fraction(0), Fraction(0), Fraction(0))


def count_model(
    model: torch.nn.Module,
    repeats: Sequence[Repeat],
    example: Callable[[int, int], Any],
    lengths: Sequence[int],
    batch: int,
    variant: Variant,
) -> dict[tuple[Quantity, Key | None], Volume]:
    """All that a model does, at any batch and length; with `repeats`, from two and three periods of each run."""

    def fitted() -> Fitted:
        return fit(lengths, [trace(model, example(batch, length), batch, variant) for length in lengths])

    if repeats:
        try:
            return _volumes(_from_cuts(repeats, fitted))
        except TooManyOperators:
            raise
        except Exception:  # any code of any model: it may count its blocks some other way
            return _volumes(fitted())
    return _volumes(fitted())


def _from_cuts(repeats: Sequence[Repeat], fitted: Callable[[], Fitted]) -> Fitted:
    base = _cut(repeats, None, fitted)
    total = dict(base)
    for longer in repeats:
        more = _cut(repeats, longer, fitted)
        for key in base.keys() | more.keys():
            before, after, sum_ = base.get(key, ZERO), more.get(key, ZERO), total.get(key, ZERO)
            total[key] = _three(sum_[i] + (longer.count - 2) * (after[i] - before[i]) for i in range(3))
    return total


def _cut(repeats: Sequence[Repeat], longer: Repeat | None, fitted: Callable[[], Fitted]) -> Fitted:
    with ExitStack() as stack:
        for repeat in repeats:
            stack.enter_context(repeat.cut(3 if repeat is longer else 2))
        return fitted()


def fit(lengths: Sequence[int], traces: Sequence[Counts]) -> Fitted:
    """Polynomials through the counts at each length."""
    counts = [each.flat() for each in traces]
    found = {
        key: polynomial(lengths, [each.get(key, 0) for each in counts])
        for key in {key for each in counts for key in each}
    }
    constant, per_sample = peak(lengths, traces)
    found["peak_bytes", None, "constant"] = constant
    found["peak_bytes", None, "per_sample"] = per_sample
    return found


def polynomial(lengths: Sequence[int], values: Sequence[int]) -> Polynomial:
    """Through three points, exactly; a constant through one."""
    if len(lengths) == 1:
        return Fraction(values[0]), Fraction(0), Fraction(0)
    (a, b, c), (u, v, w) = lengths, (Fraction(value) for value in values)
    first, second = (v - u) / (b - a), (w - v) / (c - b)
    square = (second - first) / (c - a)
    linear = first - square * (a + b)
    return u - linear * a - square * a * a, linear, square


def peak(lengths: Sequence[int], traces: Sequence[Counts]) -> tuple[Polynomial, Polynomial]:
    """Most bytes alive, (constant, per sample): short and long inputs may peak at different moments of a step.

    Each moment that is the peak at some length has its own polynomial; the greatest of each coefficient bounds them all
    and is exact where one moment is the peak at every length.
    """
    moments = [each.peak_moment for each in traces]
    if len({len(each.timeline) for each in traces}) > 1:  # the steps differ: only the peaks themselves compare
        alike = [[each.timeline[moment]] for each, moment in zip(traces, moments, strict=True)]
        moments = [0]
    else:
        alike = [each.timeline for each in traces]
        moments += [each.saved_moment for each in traces]  # small batches may peak here: the weights' 16-bit copies
    fits = [
        tuple(polynomial(lengths, [timeline[moment][part] for timeline in alike]) for part in (0, 1))
        for moment in sorted(set(moments))
    ]
    constant, per_sample = (_three(max(each[part][i] for each in fits) for i in range(3)) for part in (0, 1))
    return constant, per_sample


def _three(values: Any) -> Polynomial:
    first, second, third = values
    return first, second, third


def _volumes(fitted: Mapping[FlatKey, Polynomial]) -> dict[tuple[Quantity, Key | None], Volume]:
    names = sorted({key[:2] for key in fitted}, key=str)
    return {
        name: Volume(_floats(fitted[(*name, "constant")]), _floats(fitted[(*name, "per_sample")])) for name in names
    }


def _floats(values: Polynomial) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
