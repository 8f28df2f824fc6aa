"""Makes docs/demo.svg: what `raywise demo` printed, in its colours. Give a captured output, or the demo is run.

python docs/make_picture.py [captured.txt]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 150
PROGRESS = re.compile(r"^\w+: running .*\d+%")
TARGET = Path(__file__).with_name("demo.svg")


def captured() -> str:
    """The output of a demo, with colours."""
    if len(sys.argv) > 1:
        return Path(sys.argv[1]).read_text()
    command = [str(Path(sys.executable).with_name("raywise")), "demo"]
    colours = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "0", "TERM": "xterm-256color"}
    done = subprocess.run(command, env={**os.environ, **colours}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def shortened(lines: list[Text]) -> list[Text]:
    """Of each step's progress lines, the first, one in the middle and the last."""
    kept: list[Text] = []
    block: list[Text] = []
    for line in [*lines, Text("end")]:
        if PROGRESS.match(line.plain):
            block.append(line)
            continue
        kept += block if len(block) < 4 else [block[0], block[len(block) // 2], block[-1]]
        block = []
        kept.append(line)
    return kept[:-1]


def main() -> None:
    """Write the picture."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    text = captured().replace(str(Path.home()), "~").replace(str(Path(__file__).resolve().parents[1]) + "/", "")
    for line in shortened([Text.from_ansi(line.rstrip()) for line in text.splitlines()]):
        if line.plain.strip():
            console.print(line, soft_wrap=True)
    console.save_svg(str(TARGET), title="make run")
    sys.stdout.write(f"wrote {TARGET}\n")


if __name__ == "__main__":
    main()
