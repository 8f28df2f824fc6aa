"""What `sia_adapter` printed, beside what Sia gave in its own simulator, as docs/benchmarks-sia.md.

python -m benchmarks.peers.table OURS.jsonl [MORE.jsonl ...]
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANCHORS = ROOT.parent / "shared" / "anchors" / "sia.json"
TUNED = ("philly-1", "saturn-1")
"""The traces that settings were chosen on."""
HEAD = """# Inside Sia's simulator

Made by `python -m benchmarks.peers.table` on {date} from what
`python -m benchmarks.peers.sia_adapter SIMULATOR TRACE...` prints, for the simulator of siasosp23/artifacts: 64 GPUs
(24 T4, 24 RTX 2080 Ti, 16 A100), 160 jobs a trace. Ours is the allocation core (`scheduler/policy/allocation.py`)
behind Sia's own policy interface; Sia's numbers are those of its authors' code on the same traces, run once before.
Settings were chosen on philly-1 and saturn-1; the other traces were only run. GPU-hours are of a job.

Ours knows what Sia's policy does not use: which family a job is of (throughput measured on one job helps the next), the
simulator's own restart seconds, and the epochs that a job declares; the last column is without declared epochs.

"""


def main() -> None:
    """Write the page."""
    rows = [
        json.loads(line) for file in sys.argv[1:] for line in Path(file).read_text().splitlines() if line[:1] == "{"
    ]
    anchors = json.loads(ANCHORS.read_text())["results"]
    sia: dict[str, dict[str, Any]] = {trace: each["sia"] for trace, each in anchors.items() if "sia" in each}
    ours: dict[str, dict[str, Any]] = {}
    blind: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["policy"] == "sia":
            sia[row["trace"]] = row
        else:
            (ours if row["declared_epochs"] else blind)[row["trace"]] = row
    lines = [
        "| trace | Sia: mean JCT h | p99 | GPU-hours | ours: mean JCT h | of Sia | p99 | GPU-hours | restarts (Sia) | "
        "without declared epochs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for trace in sorted(set(ours) & set(sia)):
        theirs, own, other = sia[trace], ours[trace], blind.get(trace)
        cells = [
            trace + (" (tuned on)" if trace in TUNED else ""),
            *(f"{theirs[name]:.2f}" for name in ("mean_jct_h", "p99_jct_h", "gpu_hours_per_job")),
            f"{own['mean_jct_h']:.2f}",
            f"{own['mean_jct_h'] / theirs['mean_jct_h']:.2f}",
            *(f"{own[name]:.2f}" for name in ("p99_jct_h", "gpu_hours_per_job")),
            f"{own['restarts_per_job']:.1f} ({theirs['restarts_per_job']:.1f})",
            f"{other['mean_jct_h']:.2f}" if other else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for label, group in (("all", set(ours)), ("not tuned on", set(ours) - set(TUNED))):
        both = sorted(group & set(sia))
        jct, hours = (fmean(ours[t][name] / sia[t][name] for t in both) for name in ("mean_jct_h", "gpu_hours_per_job"))
        p99 = sum(ours[t]["p99_jct_h"] for t in both) / sum(sia[t]["p99_jct_h"] for t in both)
        lines.append(f"| {label}: ratios | | | | | {jct:.3f} | {p99:.2f} | {hours:.2f} | | |")
    text = HEAD.format(date=datetime.date.today().isoformat()) + "\n".join(lines) + "\n"  # noqa: DTZ011
    (ROOT / "docs" / "benchmarks-sia.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
