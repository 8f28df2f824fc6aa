"""How well the catalog alone tells device types apart: predicted against measured throughput ratios.

Data: steps a second that Gavel's authors measured (OSDI 2020, `simulation_throughputs.json`) for ResNet-18 on CIFAR-10,
ResNet-50 on ImageNet and a Transformer on Multi30k, at several batch sizes, one V100, P100 or K80 each, fp32. Nothing
is fitted to them in the first part; in the second, one measured model per device type is shared to the others.

python -m benchmarks.estimates.gavel [--data FILE]
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cluster.catalog import Catalog
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.expectation import expectation
from scheduler.estimate.model_profile import profile_module
from scheduler.estimate.work import Work
from scheduler.types import Configuration

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gavel" / "simulation_throughputs.json"
DEVICES = {"v100": "V100-SXM2-16GB", "p100": "P100-PCIE-16GB", "k80": "K80"}
"""What the authors rented (AWS p3, Google Cloud), by their names."""
STEPS = 1000


class CifarBlock(nn.Module):
    """Basic block of the ResNet-18 for 32 x 32 images (He et al., 2016, in its common CIFAR form)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        around = channels_in != channels or stride != 1
        self.around = (
            nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
            if around
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[samples, channels_in, H, W] to [samples, channels, H / stride, W / stride]."""
        hidden = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(hidden)) + self.around(x))


class CifarResNet18(nn.Module):
    """64 to 512 channels, two blocks each, no pooling at the start: 11.2 M parameters, 0.56 GMAC an image."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        for before, channels in ((64, 64), (64, 128), (128, 256), (256, 512)):
            layers += [CifarBlock(before, channels, 1 if before == channels else 2), CifarBlock(channels, channels, 1)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(512, 10)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss."""
        return nn.functional.cross_entropy(self.head(self.features(images).mean((2, 3))), labels)


class ImageNetResNet50(nn.Module):
    """ResNet-50 as transformers builds it: 25.6 M parameters, 4.1 GMAC an image of 224 x 224."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetForImageClassification

        self.net = ResNetForImageClassification(ResNetConfig(num_labels=1000))

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss."""
        return nn.functional.cross_entropy(self.net(images).logits, labels)


class Translator(nn.Module):
    """The base Transformer (Vaswani et al., 2017) on Multi30k: 6 + 6 layers of 512, about 10,000 words."""

    words = 9521

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.words, 512)
        self.body = nn.Transformer(512, 8, 6, 6, 2048, 0.1, batch_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of the next word; the output layer shares the embedding's weights."""
        hidden = self.body(self.embedding(source), self.embedding(target))
        return nn.functional.cross_entropy((hidden @ self.embedding.weight.T).flatten(0, 1), target.flatten())


@dataclass(frozen=True)
class Job:
    """One of the measured models."""

    build: Callable[[], nn.Module]
    example: Callable[[int, int], Any]
    tokens: int | None = None


def _images(side: int, labels: int) -> Callable[[int, int], Any]:
    return lambda batch, _: {"images": torch.randn(batch, 3, side, side), "labels": torch.randint(0, labels, (batch,))}


def _pairs(batch: int, tokens: int) -> Any:
    return {
        "source": torch.randint(0, Translator.words, (batch, tokens)),
        "target": torch.randint(0, Translator.words, (batch, tokens)),
    }


JOBS = {
    "ResNet-18": Job(CifarResNet18, _images(32, 10)),
    "ResNet-50": Job(ImageNetResNet50, _images(224, 1000)),
    "Transformer": Job(Translator, _pairs, 28),
}
"""Sentences of Multi30k have 13 words in the mean; a batch is padded to its longest, taken as 28."""


@dataclass(frozen=True)
class Measured:
    """One measured step on each device type, in the order of `DEVICES`."""

    model: str
    batch: int
    seconds: tuple[float, ...]


def measurements(path: Path) -> list[Measured]:
    """Single-device steps of the three models. Raises FileNotFoundError where the data is not there."""
    data = json.loads(path.read_text(encoding="utf-8"))
    tables = {device: {ast.literal_eval(key): value for key, value in data[device].items()} for device in DEVICES}
    found = []
    for name, count in tables["v100"]:
        model, _, rest = name.partition(" (batch size ")
        if count == 1 and model in JOBS:
            rates = [tables[device][name, 1]["null"] for device in DEVICES]
            if all(rate > 0 for rate in rates):
                found.append(Measured(model, int(rest.rstrip(")")), tuple(1 / rate for rate in rates)))
    return found


class Predictor:
    """Our estimates of the same steps."""

    def __init__(self) -> None:
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        catalog = Catalog.load()
        # They ran, so memory is not asked about.
        types = {name: replace(catalog.device_types[name], memory_bytes=None) for name in DEVICES.values()}
        self.facts = Facts(types)
        self.profiles = {
            name: profile_module(
                job.build, job.example, family=name, tokens=(8, 16, 32) if job.tokens else None, training=True
            )
            for name, job in JOBS.items()
        }

    def work(self, point: Measured) -> Work:
        """A thousand steps of a measured job."""
        return Work(
            "train",
            family=point.model,
            samples=float(STEPS * point.batch),
            tokens_per_sample=float(JOBS[point.model].tokens or 1),
            batch_size=point.batch,
            profile=self.profiles[point.model],
        )

    def step_s(self, point: Measured, device: str, calibration: Calibration | None = None) -> tuple[float, str]:
        """Predicted seconds of one step on one device, and what binds it."""
        configuration = Configuration.of({DEVICES[device]: 1})
        found = estimate(self.work(point), configuration, self.facts, calibration or Calibration())
        assert found.seconds is not None
        return (found.seconds - found.startup_s) / STEPS, found.bound

    def learn(self, calibration: Calibration, point: Measured, device: str) -> None:
        """Tell `calibration` one measured step."""
        expected = expectation(self.work(point), DEVICES[device], 1, float(point.batch), self.facts)
        assert expected is not None
        expected.learn(calibration, point.seconds[list(DEVICES).index(device)])


def ratios(points: list[Measured], predictor: Predictor) -> list[dict[str, Any]]:
    """Measured and predicted P100 : V100 and K80 : V100 step times."""
    rows = []
    for point in points:
        predicted = [predictor.step_s(point, device)[0] for device in DEVICES]
        for place, device in enumerate(list(DEVICES)[1:], start=1):
            measured = point.seconds[place] / point.seconds[0]
            ours = predicted[place] / predicted[0]
            error = abs(ours - measured) / measured
            point_of = {"model": point.model, "batch": point.batch, "device": device}
            rows.append(point_of | {"measured": measured, "predicted": ours, "error": error})
    return rows


def shared(points: list[Measured], predictor: Predictor) -> list[float]:
    """Errors of predicted step times where another model was measured on each device type: all pairs of models, the
    measured one at its middle batch size."""
    errors = []
    for teacher, pupil in itertools.permutations(JOBS, 2):
        lessons = [point for point in points if point.model == teacher]
        calibration = Calibration()
        for device in DEVICES:
            predictor.learn(calibration, lessons[len(lessons) // 2], device)
        for point in points:
            if point.model == pupil:
                for device, measured in zip(DEVICES, point.seconds, strict=True):
                    errors.append(abs(predictor.step_s(point, device, calibration)[0] - measured) / measured)
    return errors


def alone(points: list[Measured], predictor: Predictor) -> list[float]:
    """Errors of predicted step times with nothing measured."""
    return [
        abs(predictor.step_s(point, device)[0] - measured) / measured
        for point in points
        for device, measured in zip(DEVICES, point.seconds, strict=True)
    ]


def rank_correlation(left: list[float], right: list[float]) -> float:
    """Spearman's, without ties."""
    ranks = [np.argsort(np.argsort(each)).astype(float) for each in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])


def table(path: Path = DATA) -> list[dict[str, Any]]:
    """One row per statement: what was predicted from what, how many numbers, rank correlation, median and 90th
    percentile of the error."""
    points = measurements(path)
    predictor = Predictor()
    rows = ratios(points, predictor)
    flat = [(point, place, device) for point in points for place, device in enumerate(DEVICES)]
    measured = [point.seconds[place] for point, place, _ in flat]
    predicted = [predictor.step_s(point, device)[0] for point, _, device in flat]

    def row(what: str, errors: list[float], rank: float | None) -> dict[str, Any]:
        return {
            "what": what,
            "points": len(errors),
            "rank correlation": rank,
            "median error": statistics.median(errors),
            "p90 error": float(np.quantile(errors, 0.9)),
        }

    answer = []
    for model in (*JOBS, "all"):
        chosen = [each for each in rows if model in (each["model"], "all")]
        rank = rank_correlation([e["measured"] for e in chosen], [e["predicted"] for e in chosen])
        answer.append(row(f"ratios to the V100 from the catalog alone, {model}", [e["error"] for e in chosen], rank))
    logs = [math.log(value) for value in measured], [math.log(value) for value in predicted]
    answer.append(row("step times from the catalog alone", alone(points, predictor), rank_correlation(*logs)))
    answer.append(row("step times, another model measured on each type", shared(points, predictor), None))
    return answer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--points", action="store_true", help="each point as well")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        raise SystemExit(f"{arguments.data} is not there: give the file with --data")
    if arguments.points:
        predictor = Predictor()
        for point in measurements(arguments.data):
            shown = [
                f"{device} {measured * 1e3:.0f} ms, predicted {predictor.step_s(point, device)[0] * 1e3:.0f} "
                f"({predictor.step_s(point, device)[1]})"
                for device, measured in zip(DEVICES, point.seconds, strict=True)
            ]
            print(f"{point.model} x{point.batch}: {'; '.join(shown)}")
    for each in table(arguments.data):
        rank = "" if each["rank correlation"] is None else f", rank correlation {each['rank correlation']:.2f}"
        found = f"median error {each['median error']:.0%}, p90 {each['p90 error']:.0%}, {each['points']} points"
        print(f"{each['what']}: {found}{rank}")


if __name__ == "__main__":
    main()
