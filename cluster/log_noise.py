"""What Ray itself writes into the log of every run, and that says nothing to the user: told apart line by line.

Only whole lines of known wording are noise; a line that merely looks like Ray's is the user's and stays.
"""

from __future__ import annotations

import re

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_REPEATED = r"(?: \[repeated \d+x across cluster\].*)?"
_NOISE = re.compile(
    "|".join(
        (
            rf"{_TIME}\tINFO job_manager\.py:\d+ -- Runtime env is setting up\.",
            rf"{_TIME}\tWARNING __init__\.py:\d+ -- Progress bars disabled\. To enable, set `ray\.data\.DataContext.*",
            r"Running entrypoint for job \S+: python -P -m raywise_workloads",
            # Ray Train's own watcher of preemptions, at every start (ray-project/ray#53727).
            rf"\([^()]*pid=\d+[^()]*\) \[{_TIME} E \d+ \d+\] core_worker\.cc:\d+: Actor with class name: "
            rf"'PreemptionWatcher' .* the actor restart will fail\..*{_REPEATED}",
        )
    )
)
_PREFIX_COLOUR = re.compile(r"^\x1b\[\d+m(\([^()\x1b]*pid=\d+[^()\x1b]*\))\x1b\[0m")
_REPEATS = re.compile(r"\x1b\[32m( \[repeated \d+x across cluster\])(?: \(Ray deduplicates[^\x1b]*\))?\x1b\[0m$")


def without_noise(text: str) -> str:
    """The lines of a log that are not Ray's own, and without the colours and the advice that Ray adds to the user's;
    the user's own colours stay."""
    lines = (_plain(line) for line in text.split("\n"))  # not splitlines: progress bars live on carriage returns
    return "\n".join(line for line in lines if not _NOISE.fullmatch(line))


def _plain(line: str) -> str:
    return _REPEATS.sub(r"\1", _PREFIX_COLOUR.sub(r"\1", line))
