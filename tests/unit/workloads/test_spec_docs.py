"""`docs/spec.md` documents every field that a spec may have, and none that it may not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from workloads.spec import (
    BatchInfer,
    Benchmark,
    Command,
    Pipeline,
    Preprocess,
    Resources,
    Serve,
    TextClassification,
    Train,
    WorkloadBase,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "spec.md"
EVERY_KIND = {*WorkloadBase.model_fields, "kind"}
KINDS: dict[str, type[BaseModel]] = {
    "preprocess": Preprocess,
    "train": Train,
    "batch-infer": BatchInfer,
    "command": Command,
    "benchmark": Benchmark,
    "serve": Serve,
}
SECTIONS = {
    "Every kind": EVERY_KIND,
    "Resources": set(Resources.model_fields),
    "Hyper-parameters of text-classification": set(TextClassification.model_fields),
    "kind: pipeline": set(Pipeline.model_fields) - {"kind"},
    **{f"kind: {kind}": set(model.model_fields) - EVERY_KIND for kind, model in KINDS.items()},
}


def rows(section: str) -> list[str]:
    """First cells of the table rows of a section."""
    text = DOCUMENT.read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    bodies = dict(zip((name.strip().replace("`", "") for name in parts[1::2]), parts[2::2], strict=True))
    assert section in bodies, f"docs/spec.md has no section {section!r}; it has {', '.join(bodies)}"
    return re.findall(r"^\| `([^`]+)` \|", bodies[section], flags=re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_documented_once_and_no_other(section: str) -> None:
    documented = rows(section)
    assert len(documented) == len(set(documented))
    assert set(documented) - {"kind"} == SECTIONS[section] - {"kind"}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_has_four_cells(section: str) -> None:
    body = DOCUMENT.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    table = [line for line in body.splitlines() if line.startswith("| `")]
    assert [line for line in table if line.replace("\\|", "").count("|") != 5] == []
