"""`python -m tests.torture`: kill parts of a real service and cluster at random, and look whether anything was lost.

.venv/bin/python -m tests.torture --kills 200 --seed 1 --home /tmp/torture --report /tmp/torture.json
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from pathlib import Path

from .run import Torture


def main() -> int:
    """0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=120.0, help="stop killing after so long")
    parser.add_argument("--home", type=Path, required=True, help="a new folder")
    parser.add_argument("--report", type=Path, help="where to write the result as JSON")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torture = Torture(options.home, random.Random(options.seed))
    deadline = time.monotonic() + 60 * options.minutes
    report = torture.run(options.kills, deadline)
    text = json.dumps({"seed": options.seed, **report}, indent=1)
    print(text)
    if options.report is not None:
        options.report.write_text(text + "\n")
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
