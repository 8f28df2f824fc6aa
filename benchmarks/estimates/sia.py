"""Step times of larger placements from measurements of one and two replicas: ours beside Pollux's throughput model.

Data: the measurements published with Sia (SOSP 2023) of five models on five kinds of machine, up to 64 replicas on 16
nodes. Both are fitted, for each model and kind of machine, to the placements of one and two replicas only, and predict
every larger one. Error: |predicted - measured| / measured of the step.

python benchmarks/estimates/sia.py [--data FOLDER] [--search]
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize  # type: ignore[import-untyped]

from scheduler.estimate import step_time
from scheduler.estimate.calibration import Calibration, Subject, operating_point
from scheduler.estimate.communication import (
    MEASURED,
    Gang,
    Growth,
    Links,
    all_reduce_s,
    exposed_s,
    host_factor,
    waiting_s,
)
from scheduler.estimate.rows import HOST_SHARE

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "sia" / "profiles"
DEVICES = {"aws": "T4", "rtx": "2080Ti", "dgx-ext": "A100", "quad": "RTX6000", "azure": "V100"}
GRADIENT_BYTES = {"bert": 440e6, "cifar10": 45e6, "deepspeech2": 160e6, "imagenet": 102e6, "yolov3": 248e6}
"""fp32 gradients of BERT-base, ResNet-18, DeepSpeech2, ResNet-50 and YOLOv3: centre of a wide prior."""
FITTED_REPLICAS = 2
Array = npt.NDArray[np.float64]
Pair = tuple[str, str]
"""Model and kind of machine."""


# -------------------- data


@dataclass(frozen=True)
class Points:
    """Measured steps, one per row."""

    nodes: Array
    replicas: Array
    fullest: Array
    """Replicas on the fullest node."""
    batch: Array
    """Samples per replica."""
    step_s: Array
    sync_s: Array
    """What the step waits for the gradients of others, after its own backward pass."""

    def __len__(self) -> int:
        return len(self.step_s)

    def where(self, keep: npt.NDArray[np.bool_]) -> Points:
        """Only some rows."""
        return Points(*(getattr(self, field.name)[keep] for field in dataclasses.fields(self)))


def load(folder: Path = DATA) -> dict[Pair, Points]:
    """All measurements, by model and kind of machine."""
    if not folder.is_dir():
        raise SystemExit(f"no measurements at {folder}: give the folder sia/profiles of the published data with --data")
    models = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {(model, device): _points(folder / model, device) for model in models for device in DEVICES}


def _points(folder: Path, device: str) -> Points:
    """The placements, and the scaling runs that do not repeat one of them."""
    rows = list(_rows(folder / f"placements-{device}.csv"))
    seen = {(row[0], row[1], *row[3:]) for row in rows}
    rows += [row for row in _rows(folder / f"scalability-{device}.csv") if (row[0], row[1], *row[3:]) not in seen]
    return Points(*np.array(rows).T)


def _rows(path: Path) -> Iterator[tuple[float, ...]]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if "placement" in row:
                counts = [int(digit) for digit in row["placement"]]
                placed = len(counts), sum(counts), max(counts)
            else:
                nodes, replicas = int(row["num_nodes"]), int(row["num_replicas"])
                placed = nodes, replicas, -(-replicas // nodes)
            yield (*placed, *(float(row[name]) for name in ("local_bsz", "step_time", "sync_time")))


# -------------------- Pollux


def pollux(fitted: Points, wanted: Points) -> Array:
    """Pollux (Qiao et al., OSDI 2021, section 3.2), fitted as in `adaptdl.goodput` of its authors: start, bounds,
    penalties and optimizer are theirs; gradients are exact (theirs by automatic differentiation, ours complex steps).

    Without a point of three or more replicas it fixes the growth with replicas at zero, as theirs does.
    """
    start = np.array([0.1, 0.01] * 3 + [1.001])
    low, high = np.array([1e-8] * 6 + [1.0]), np.array([np.inf] * 6 + [10.0])
    compute_s = fitted.step_s - fitted.sync_s
    if len(np.unique(fitted.batch)) == 1:
        start[0] = low[0] = high[0] = compute_s.mean() / 2
    together = (fitted.nodes == 1) & (fitted.replicas > 1)
    more = bool((fitted.replicas > 2).any())
    observed = (bool((fitted.nodes > 1).any()), more, bool(together.any()), more)
    for k, informed in zip((2, 3, 4, 5), observed, strict=True):
        if not informed:
            start[k] = high[k] = low[k]

    def objective(p: Array) -> float:
        step_s, work_s = _pollux_step(p, fitted)
        errors = _rmse(np.log(step_s), np.log(fitted.step_s)) + _rmse(np.log(work_s), np.log(compute_s))
        penalty = 1e-3 * (p[6] - 1) ** 2 + 1e-2 * ((p[3] / p[2]) ** 2 + (p[5] / p[4]) ** 2)
        return errors + penalty  # type: ignore[no-any-return]

    def gradient(p: Array) -> Array:
        steps = p + 1e-30j * np.eye(len(p))
        return np.array([np.imag(objective(step)) / 1e-30 for step in steps])

    bounds = optimize.Bounds(low, high, keep_feasible=True)
    found = optimize.minimize(lambda p: float(np.real(objective(p))), start, jac=gradient, bounds=bounds)
    return _pollux_step(found.x, wanted)[0]


def _pollux_step(p: Array, points: Points) -> tuple[Array, Array]:
    """(step, compute): T_grad = a + b m; T_sync = a + b (K-2) within a node, or between; their p-norm."""
    across, within = points.nodes > 1, points.replicas > 1
    grad_s = p[0] + p[1] * points.batch
    more = np.maximum(points.replicas - 2, 1e-8)
    sync_s = np.select([across, within], [p[2], p[4]], 1e-8) + np.select([across, within], [p[3], p[5]], 1e-8) * more
    return (grad_s ** p[6] + sync_s ** p[6]) ** (1 / p[6]), grad_s


def _rmse(found: Array, wanted: Array) -> float:
    return np.sqrt(((found - wanted) ** 2).mean())  # type: ignore[no-any-return]


# -------------------- ours


@dataclass(frozen=True)
class Form:
    """What holds for all models and machines: how things grow, and medians and log-spreads of what is fitted."""

    between: float
    within: float
    """`communication.Growth`."""
    overlap: float
    """Share of the work that communication hides behind."""
    host: float
    host_spread: float
    """Slowdown of the work by each doubling of the replicas on one host."""
    bucket: float
    bucket_spread: float
    """Share of the communication that nothing hides."""
    wait: float
    wait_spread: float
    """Standard deviation of the work of one replica, as a share."""
    batch_spread: float
    """How far single batch sizes stray from a straight line (kernels chosen by shape)."""


UNTUNED = Form(1.0, 0.0, 2 / 3, 0.03, 1.0, 0.1, 0.7, 0.02, 1.0, 0.1)
"""Before any larger placement was looked at: a plain ring, all of the backward pass hides."""
CHOSEN = Form(0.53, 0.26, 0.44, 0.04, 0.34, 0.16, 1, 0.013, 0.63, 0.18)
"""What `--search` finds with all larger placements, rounded; `WITHOUT`: what it is worth where they were not seen."""
NOISE = 0.05
"""Log-spread of one measurement; outliers count less (soft L1 beyond two spreads)."""
NAMES = ("fixed", "per_sample", "alone", "host", "within", "between", "bucket", "wait")
"""Of one model on one kind of machine, all in logarithms: seconds of a step whatever the batch, seconds per sample,
what a replica without partners takes longer (share of fixed: it estimates its gradient noise alone), the slowdown on a
shared host, seconds of an all-reduce of two on one node and of two on two nodes, and the last two shares of `Form`."""


@dataclass(frozen=True)
class StepTime:
    """The product's step: work on a shared host, what overlap leaves of the communication, waiting for the slowest."""

    form: Form
    batches: Array
    """Batch sizes that were measured: each has a correction of its own, interpolated for others."""

    def seconds(self, theta: Array, points: Points) -> tuple[Array, Array]:
        """(step, work), each [sets of parameters, points], for parameters [sets, 8 + batches]."""
        fixed, per_sample, alone, host, within, between, bucket, wait = np.exp(theta[:, : len(NAMES), None]).swapaxes(
            0, 1
        )
        work_s = (fixed + per_sample * points.batch) * np.exp(theta[:, len(NAMES) :] @ self._nearest(points.batch))
        work_s = work_s * host_factor(points.fullest, host) + np.where(points.replicas == 1, alone * fixed, 0.0)
        gang = Gang(points.replicas, points.nodes, points.fullest)
        growth = Growth(self.form.within, self.form.between)
        traffic_s = all_reduce_s(1.0, gang, Links(1 / within, 1 / between, 0.0), growth)
        shown_s = exposed_s(traffic_s, work_s, self.form.overlap, bucket)
        return work_s + shown_s + waiting_s(work_s, points.replicas, wait), work_s

    def _nearest(self, batch: Array) -> Array:
        """[measured batches, points]: weights of linear interpolation over log batch."""
        known = np.log(self.batches)
        return np.array([np.interp(np.log(batch), known, one) for one in np.eye(len(known))])


def ours(form: Form, model: str, fitted: Points, wanted: Points) -> Array:
    """Maximum a posteriori of the parameters given steps and work of the fitted points; then the wanted steps."""
    step = StepTime(form, np.unique(fitted.batch))
    mean, spread = _prior(form, model, fitted, len(step.batches))
    measured = np.log(np.concatenate([fitted.step_s, fitted.step_s - fitted.sync_s]))

    def residuals(theta: Array) -> Array:
        found = np.log(np.concatenate(step.seconds(theta, fitted), axis=1))
        return np.concatenate([(found - measured) / NOISE, (theta - mean) / spread], axis=1)

    def jacobian(theta: Array) -> Array:
        nudge = 1e-5 * np.eye(len(theta))
        return ((residuals(theta + nudge) - residuals(theta - nudge)) / 2e-5).T

    found = optimize.least_squares(
        lambda theta: residuals(theta[None])[0], mean, jac=jacobian, loss="soft_l1", f_scale=2.0, max_nfev=40, ftol=1e-3
    )
    predicted, _ = step.seconds(found.x[None], wanted)
    return np.asarray(predicted[0])


def _prior(form: Form, model: str, fitted: Points, batches: int) -> tuple[Array, Array]:
    """Means and spreads of the logarithms. Work starts from a straight line, links from 3 GB/s within a factor of 7."""
    work_s = fitted.step_s - fitted.sync_s
    slope, fixed = np.polyfit(fitted.batch, work_s, 1)
    pair_s = GRADIENT_BYTES[model] / 3e9
    centre = [max(fixed, 0.2 * work_s.min()), max(slope, 1e-6), 0.1, form.host, pair_s, pair_s, form.bucket, form.wait]
    spread = [2.0, 2.0, 1.0, form.host_spread, 2.0, 2.0, form.bucket_spread, form.wait_spread]
    return np.append(np.log(centre), np.zeros(batches)), np.append(spread, np.full(batches, form.batch_spread))


# -------------------- the product

TRAINING_FLOPS = {
    "bert": 6 * 110e6 * 384,
    "cifar10": 3 * 1.12e9,
    "deepspeech2": 3 * 22e9,
    "imagenet": 3 * 8.2e9,
    "yolov3": 3 * 66e9,
}
"""Forward and backward FLOPs of a sample (published sizes of BERT-base at 384 tokens, ResNet-18 and -50, YOLOv3 at 416;
DeepSpeech2's is a guess): where calibration starts from."""
PEAK_FLOPS_S = {"aws": 8.1e12, "rtx": 13.4e12, "dgx-ext": 19.5e12, "quad": 16.3e12, "azure": 15.7e12}
WITHIN_BYTES_S = {"aws": 11e9, "rtx": 11e9, "dgx-ext": 200e9, "quad": 11e9, "azure": 11e9}
NETWORK_BYTES_S = 1e9
FIXED_S = 0.02
OVERLAP = 0.44


def parts(pair: Pair, points: Points) -> Array:
    """[points, 6]: what the product would predict of these steps uncalibrated, by part of a step."""
    model, device = pair
    found = np.zeros((len(points), len(step_time.PARTS)))
    found[:, step_time.COMPUTE] = TRAINING_FLOPS[model] * points.batch / (0.5 * PEAK_FLOPS_S[device])
    found[:, step_time.LAUNCH] = FIXED_S
    waiting = waiting_s(1.0, points.replicas, step_time.WAITING)
    found[:, step_time.CROWDING] = found.sum(axis=1) * (host_factor(points.fullest, HOST_SHARE) - 1 + waiting)
    on_node = Gang(points.replicas, 1, points.fullest), Links(WITHIN_BYTES_S[device], np.inf)
    across = Gang(points.replicas, points.nodes, 1), Links(np.inf, NETWORK_BYTES_S)
    for part, (gang, links), crossed in (
        (step_time.WITHIN, on_node, points.fullest > 1),
        (step_time.BETWEEN, across, points.nodes > 1),
    ):
        found[:, part] = np.where(crossed, all_reduce_s(GRADIENT_BYTES[model], gang, links, MEASURED), 0.0)
    return found


@functools.cache
def taught(folder: Path = DATA) -> Calibration:
    """The product's calibration after all placements of one and two replicas, of all models and machines."""
    calibration = Calibration()
    for pair, every in load(folder).items():
        small = every.where(every.replicas <= FITTED_REPLICAS)
        rows = zip(small.replicas, small.nodes, small.batch, small.step_s, parts(pair, small), strict=True)
        for replicas, nodes, batch, step_s, uncalibrated in rows:
            shards = int(10 * replicas + nodes)  # two on one node and two on two are not the same point
            calibration.observe(_subject(pair), shards, operating_point(batch, None), step_s, uncalibrated, OVERLAP)
    return calibration


def product(pair: Pair, fitted: Points, wanted: Points) -> Array:
    """Raywise's own calibration, taught the small placements of all pairs: nothing but step times."""
    del fitted
    calibration, labels = taught(), [operating_point(batch, None) for batch in wanted.batch]
    known = {label: label if (_subject(pair), label) in calibration.labels else "" for label in labels}
    factors = np.exp([calibration.belief(_subject(pair), known[label]).mean for label in labels])
    return step_time.total_s(parts(pair, wanted) * factors, np.array(OVERLAP))


def _subject(pair: Pair) -> Subject:
    return Subject("train", pair[0], pair[1], "fp32")


# -------------------- held-out, and the tables

WITHOUT: dict[str, Form] = {
    "bert": Form(0.623, 0.223, 0.443, 0.0225, 0.988, 0.1, 1.35, 0.0248, 1, 0.067),
    "cifar10": Form(0.47, 0.159, 0.722, 0.0224, 0.81, 0.101, 0.704, 0.0368, 0.487, 0.138),
    "deepspeech2": Form(0.512, 0.225, 0.487, 0.0419, 0.472, 0.107, 1.55, 0.0139, 0.641, 0.17),
    "imagenet": Form(0.554, 0.289, 0.422, 0.0448, 0.366, 0.158, 1.04, 0.0174, 0.819, 0.158),
    "yolov3": Form(0.512, 0.12, 0.6, 0.0261, 0.67, 0.1, 0.7, 0.0244, 1, 0.159),
    "aws": Form(0.632, 0.0878, 0.733, 0.0188, 0.67, 0.1, 0.683, 0.0244, 0.767, 0.185),
    "rtx": Form(0.512, 0.512, 0.4, 0.0814, 0.517, 0.121, 2.08, 0.0153, 0.649, 0.179),
    "dgx-ext": Form(0.535, 0.263, 0.471, 0.0458, 0.559, 0.0763, 1.35, 0.0249, 2.97, 0.124),
    "quad": Form(0.535, 0.276, 0.422, 0.0433, 0.409, 0.158, 1.04, 0.0142, 0.595, 0.222),
    "azure": Form(0.535, 0.134, 0.443, 0.0448, 0.67, 0.112, 1.04, 0.014, 0.671, 0.122),
}
"""The form found without any larger placement of one model, or of one kind of machine: `--search`, from `UNTUNED`."""

Predict = Callable[[Pair, Points, Points], Array]


def predictors() -> dict[str, Predict]:
    """Name of a column -> (pair, fitted, wanted) -> seconds."""
    return {
        "pollux": lambda _, fitted, wanted: pollux(fitted, wanted),
        "raywise": product,
        "form": lambda pair, fitted, wanted: ours(CHOSEN, pair[0], fitted, wanted),
        "form_new_model": lambda pair, fitted, wanted: ours(WITHOUT[pair[0]], pair[0], fitted, wanted),
        "form_new_device": lambda pair, fitted, wanted: ours(WITHOUT[pair[1]], pair[0], fitted, wanted),
        "form_untuned": lambda pair, fitted, wanted: ours(UNTUNED, pair[0], fitted, wanted),
    }


def errors(points: Mapping[Pair, Points], predict: Predict) -> dict[Pair, Array]:
    """Predicted / measured of every larger placement, after fitting to the small ones."""
    found = {}
    for pair, each in points.items():
        small = each.replicas <= FITTED_REPLICAS
        wanted = each.where(~small)
        found[pair] = predict(pair, each.where(small), wanted) / wanted.step_s
    return found


def table(folder: Path = DATA, pairs: bool = False) -> list[dict[str, str | float]]:
    """One row per kind of machine and one for all (or per model and machine): points, and for each predictor the median
    and the 90th percentile of the relative error."""
    ratios = _ratios(folder)
    groups: dict[str, list[Pair]] = {}
    for pair in ratios["raywise"]:
        groups.setdefault(f"{pair[0]} on {DEVICES[pair[1]]}" if pairs else DEVICES[pair[1]], []).append(pair)
    if not pairs:
        groups["all"] = list(ratios["raywise"])
    return [_row(label, members, ratios) for label, members in groups.items()]


@functools.cache
def _ratios(folder: Path) -> dict[str, dict[Pair, Array]]:
    points = load(folder)
    return {name: errors(points, predict) for name, predict in predictors().items()}


def _row(label: str, members: Iterable[Pair], ratios: Mapping[str, Mapping[Pair, Array]]) -> dict[str, str | float]:
    row: dict[str, str | float] = {"device": label}
    for name, by_pair in ratios.items():
        error = np.abs(np.concatenate([by_pair[pair] for pair in members]) - 1)
        row["points"] = len(error)
        row[f"{name}_median"], row[f"{name}_p90"] = float(np.median(error)), float(np.quantile(error, 0.9))
    return row


# -------------------- search


def search(points: Mapping[Pair, Points], start: Form = UNTUNED, rounds: int = 7) -> Form:
    """The form with the least loss on these pairs: one constant at a time, up or down, with shrinking steps."""
    names = [field.name for field in dataclasses.fields(Form)]
    step, best, least = dict.fromkeys(names, 0.4), start, _loss(points, start)
    for _ in range(rounds):
        for name in names:
            for direction in (1, -1):
                value = max(0.0, getattr(best, name) + direction * step[name] * max(getattr(start, name), 0.3))
                if "spread" in name or name in {"host", "bucket", "wait"}:
                    value = getattr(best, name) * float(np.exp(direction * step[name]))
                tried = dataclasses.replace(best, **{name: value})
                loss = _loss(points, tried)
                if loss < least - 1e-5:
                    best, least, step[name] = tried, loss, step[name] * 1.3
                    break
            else:
                step[name] /= 2
    return best


def _loss(points: Mapping[Pair, Points], form: Form) -> float:
    """Mean absolute log error, gross errors cut, pairs with many points weighing more, but not in proportion."""
    ratios = errors(points, lambda pair, fitted, wanted: ours(form, pair[0], fitted, wanted)).values()
    weights = [len(ratio) ** 0.5 for ratio in ratios]
    return float(np.average([np.minimum(np.abs(np.log(ratio)), 0.6).mean() for ratio in ratios], weights=weights))


def main() -> None:
    """Prints the tables; with `--search`, finds the constants again instead (ten minutes)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with one folder per model")
    parser.add_argument(
        "--search", action="store_true", help="fit the form's constants, also without each model and machine"
    )
    arguments = parser.parse_args()
    if arguments.search:
        points = load(arguments.data)
        for left_out in ("", *dict.fromkeys(name for pair in points for name in pair)):
            kept = {pair: each for pair, each in points.items() if left_out not in pair}
            print(left_out or "all", search(kept), flush=True)
        return
    for by_pair in (False, True):
        print(as_text(table(arguments.data, by_pair)), end="\n\n")


def as_text(rows: list[dict[str, str | float]]) -> str:
    """Columns: median / 90th percentile of the relative error, in percent."""
    names = list(predictors())
    lines = [f"{'':22}{'points':>8}" + "".join(f"{name:>18}" for name in names)]
    for row in rows:
        cells = (f"{100 * float(row[f'{name}_median']):.1f} / {100 * float(row[f'{name}_p90']):.1f}" for name in names)
        lines.append(f"{row['device']:22}{row['points']:>8}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
