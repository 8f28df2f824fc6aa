"""The accuracy of the estimates, measured: writes docs/accuracy.md. `make bench-estimate` runs it.

Step times and memory are measured on this machine first (`measure.py`), unless --measured names a file of an earlier
run; predictions come from the product's own functions and from host rates measured just before.

python -m benchmarks.estimates.accuracy [--measured FILE] [--out docs/accuracy.md] [--date DATE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster.catalog import Catalog
from cluster.host import HostRates, host_cpu, measure_host, measure_reduce
from cluster.types import DeviceType
from scheduler.estimate.calibration import Calibration
from scheduler.estimate.cost_model import Facts, estimate
from scheduler.estimate.expectation import Expectation, expectation
from scheduler.estimate.memory import FRAMEWORK_BYTES, HOST_FIXED_BYTES, peak
from scheduler.estimate.model_profile import profile_module
from scheduler.estimate.profile import ModelProfile
from scheduler.estimate.work import Work
from scheduler.types import Configuration

from . import gavel, published, sia

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = 1000
LESSONS = 3
"""Configurations of a model that calibration is taught; all others are the test."""


@cache
def profile(model: str, training: bool, precision: str, host: bool) -> ModelProfile:
    """A model of the registry, traced without weights."""
    sys.path.insert(0, str(HERE))
    from models import MODELS  # type: ignore[import-not-found]

    entry = MODELS[model]
    tokens = None if model == "convnet" else (16, 32, 64)
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
    return profile_module(
        entry.build,
        entry.example,
        family=entry.family,
        tokens=tokens,
        training=training,
        precision=precision,  # type: ignore[arg-type]
        accelerator=not host,
    )


@dataclass(frozen=True)
class Bench:
    """What the measured device is to the cost model."""

    facts: Facts
    device: str

    def work(self, point: dict[str, Any]) -> Work:
        """A thousand steps of a measured point. Replicas of inference have a batch each."""
        training, shards = point["mode"] == "train", point["shards"]
        host = self.facts.device_types[self.device].kind == "cpu"
        batch = point["batch"] if training else max(1, point["batch"] // shards)
        return Work(
            "train" if training else "batch-infer",
            family=point["family"],
            precision=point["precision"],
            samples=float(STEPS * point["batch"]),
            tokens_per_sample=float(point["tokens"] or 1),
            batch_size=batch,
            profile=profile(point["model"], training, point["precision"], host),
        )

    def expected(self, point: dict[str, Any]) -> Expectation:
        """One step, uncalibrated. Two replicas of inference do not wait for each other: each is one device."""
        work = self.work(point)
        count = point["shards"] if work.training else 1
        found = expectation(work, self.device, count, float(work.batch_size), self.facts)
        assert found is not None
        return found

    def predicted_s(self, point: dict[str, Any], calibration: Calibration) -> tuple[float, float, float]:
        """(seconds, low, high) of one step."""
        configuration = Configuration.of({self.device: point["shards"]})
        found = estimate(self.work(point), configuration, self.facts, calibration)
        bare = estimate(replace(self.work(point), samples=0.0), configuration, self.facts, calibration)
        assert found.seconds is not None and found.low_s is not None and found.high_s is not None
        assert bare.seconds is not None and bare.low_s is not None and bare.high_s is not None
        return (
            (found.seconds - bare.seconds) / STEPS,
            (found.low_s - bare.low_s) / STEPS,
            (found.high_s - bare.high_s) / STEPS,
        )


def host_bench() -> tuple[Bench, HostRates]:
    """This machine's cores as the local cluster describes them, with rates measured now."""
    rates = replace(measure_host(), reduce_bytes_s=measure_reduce())
    cpu = host_cpu(Catalog.load().device("cpu"), rates)
    # Memory is compared by itself.
    facts = Facts({"cpu": replace(cpu, memory_bytes=None)}, devices_per_node={"cpu": rates.cores})
    return Bench(facts, "cpu"), rates


def gpu_bench(name: str) -> Bench:
    """A GPU by the name that its driver gives it, from the catalog alone."""
    device: DeviceType | None = Catalog.load().find(name)
    if device is None:
        raise SystemExit(f"{name} is not in the catalog")
    return Bench(
        Facts({device.name: replace(device, memory_bytes=None)}, devices_per_node={device.name: 8}), device.name
    )


def lessons(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What calibration is taught of one model: a training step on one shard and one on two, and an inference step,
    each of the middle size, all fp32."""
    chosen = []
    for mode, shards in (("train", 1), ("train", 2), ("infer", 1)):
        same = [p for p in points if (p["mode"], p["shards"], p["precision"]) == (mode, shards, "fp32")]
        same.sort(key=lambda p: p["batch"] * (p["tokens"] or 1))
        if same:
            chosen.append(same[len(same) // 2])
    return chosen[:LESSONS]


@dataclass
class Comparison:
    """Predicted against measured steps."""

    point: dict[str, Any]
    before_s: float
    after_s: float | None
    """None for what calibration was taught."""
    inside: bool = False

    @property
    def measured_s(self) -> float:
        """Median of the steps."""
        return float(self.point["seconds"])


def compare(bench: Bench, points: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Every point before any calibration, and after it was taught three others of the same model."""
    found = []
    good = [point for point in points if "failed" not in point]
    for model in dict.fromkeys(point["model"] for point in good):
        mine = [point for point in good if point["model"] == model]
        taught = lessons(mine)
        calibration = Calibration()
        for point in taught:
            bench.expected(point).learn(calibration, point["seconds"])
        for point in mine:
            before_s = bench.predicted_s(point, Calibration())[0]
            after_s, low_s, high_s = bench.predicted_s(point, calibration)
            inside = low_s <= point["seconds"] <= high_s
            found.append(Comparison(point, before_s, None if point in taught else after_s, inside))
    return found


def error(predicted: float, measured: float) -> float:
    """Relative error."""
    return abs(predicted - measured) / measured


def within_two(predicted: float, measured: float) -> bool:
    """Whether a factor of two either way holds the truth."""
    return 0.5 <= predicted / measured <= 2.0


def step_table(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """By model and precision, and all together."""
    groups: dict[str, list[Comparison]] = {}
    for each in found:
        groups.setdefault(f"{each.point['model']} {each.point['mode']} {each.point['precision']}", []).append(each)
    groups["all fp32"] = [each for each in found if each.point["precision"] == "fp32"]
    groups["all"] = list(found)
    rows = []
    for name, group in groups.items():
        tested = [each for each in group if each.after_s is not None]
        before = [error(each.before_s, each.measured_s) for each in group]
        after = [error(each.after_s, each.measured_s) for each in tested if each.after_s is not None]
        rows.append(
            {
                "what": name,
                "points": len(group),
                "within 2x": share(within_two(each.before_s, each.measured_s) for each in group),
                "median before": percent(statistics.median(before)),
                "tested": len(tested),
                "median after": percent(statistics.median(after)) if after else "-",
                "p90 after": percent(float(np.quantile(after, 0.9))) if after else "-",
                "in the interval": share(each.inside for each in tested),
            }
        )
    return rows


def memory_table(bench: Bench, points: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predicted against measured peaks. The framework's own memory is taken as measured in the same process: a Ray
    worker, which the prior is for, was not part of it."""
    rows = []
    for point in points:
        if "failed" in point:
            continue
        work = bench.work(point)
        host = bench.facts.device_types[bench.device].kind == "cpu"
        shards = np.array(float(point["shards"]))
        share_of = np.array(work.batch_size / (point["shards"] if work.training else 1))
        memory = peak(work, share_of, shards, np.array(float(host)))
        framework = point["framework_bytes"] if host else 0.0
        predicted = float(memory.total) - FRAMEWORK_BYTES["cpu" if host else "gpu"] + framework
        rows.append(
            {
                "what": f"{point['model']} {point['mode']} {point['precision']}",
                "shards": point["shards"],
                "batch": point["batch"],
                "tokens": point["tokens"] or "-",
                "measured MB": round(point["peak_bytes"] / 1e6),
                "predicted MB": round(predicted / 1e6),
                "over by": percent(predicted / point["peak_bytes"] - 1),
            }
        )
    return rows


def percent(value: float) -> str:
    """`12%`; one digit below 10%."""
    return f"{value:.0%}" if abs(value) >= 0.1 else f"{value:.1%}"


def share(flags: Iterable[bool]) -> str:
    """`9 of 10`."""
    values = list(flags)
    return f"{sum(values)} of {len(values)}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table; numbers to the right."""
    if not rows:
        return "Nothing was measured.\n"
    names = list(rows[0])
    numeric = [not isinstance(rows[0][name], str) or rows[0][name][:1].isdigit() for name in names]
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join(" ---: " if n else " --- " for n in numeric) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measure() -> dict[str, Any]:
    """Measure this machine now: minutes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "measured.json")
        subprocess.run([sys.executable, str(HERE / "measure.py"), "--out", str(file)], check=True)
        return dict(json.loads(file.read_text()))


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="JSON that measure.py wrote before")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "accuracy.md")
    parser.add_argument("--date", default=datetime.date.today().isoformat())  # noqa: DTZ011
    parser.add_argument("--points", action="store_true", help="print every step time as well")
    arguments = parser.parse_args()
    bench, rates = host_bench()
    data = measure() if arguments.measured is None else json.loads(arguments.measured.read_text())
    found = compare(bench, data["points"])
    if arguments.points:
        for each in found:
            p = each.point
            after = "taught" if each.after_s is None else f"{each.after_s * 1e3:.1f}"
            name = f"{p['model']} {p['mode']} {p['precision']} x{p['shards']} {p['batch']}x{p['tokens']}"
            print(f"{name}: {each.measured_s * 1e3:.1f} ms, predicted {each.before_s * 1e3:.1f}, after {after}")
    text = report(arguments.date, rates, data, found, memory_table(bench, data["memory"]))
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


def report(
    date: str, rates: HostRates, data: dict[str, Any], found: Sequence[Comparison], memory: list[dict[str, Any]]
) -> str:
    """The document."""
    text = (HERE / "accuracy.template.md").read_text(encoding="utf-8")
    over = [float(row["predicted MB"]) / float(row["measured MB"]) - 1 for row in memory]
    return text.format(
        date=date,
        machine=f"{data['machine'].get('cpu', platform.processor())}, {rates.cores} cores, no GPU, "
        f"torch {data['machine'].get('torch', '?')}, measured {data.get('date', date)}",
        rates=f"{rates.core_flops / 1e9:.0f} GFLOP/s fp32, {rates.core_bandwidth_bytes_s / 1e9:.1f} GB/s copy",
        steps=markdown(step_table(found)),
        memory=markdown(memory),
        framework=round((FRAMEWORK_BYTES["cpu"] + HOST_FIXED_BYTES) / 1e6),
        memory_summary=f"Under by at most {percent(max(0.0, -min(over, default=0.0)))}; median "
        f"{percent(statistics.median(over) if over else 0.0)} over.",
        sia=sia.as_text(sia.table()) if sia.DATA.is_dir() else "The data was not there.",
        gavel=markdown(_gavel()) if gavel.DATA.is_file() else "The data was not there.",
        published=markdown(published.table()),
    )


def _gavel() -> list[dict[str, Any]]:
    rows = gavel.table()
    return [row | {name: percent(row[name]) for name in ("median error", "p90 error")} for row in rows]


if __name__ == "__main__":
    main()
