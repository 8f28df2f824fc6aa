"""`docs/service.md` documents every field of `service.yaml`, with its default, and no other; its example is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from cluster.definition import QueueDefinition
from scheduler.service.config import (
    ClusterConfig,
    ListenConfig,
    LogConfig,
    RateLimitConfig,
    ServiceConfig,
    TlsConfig,
)

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "service.md"
MODELS = {
    "Service": ServiceConfig,
    "Service: listen": ListenConfig,
    "Service: tls": TlsConfig,
    "Service: cluster": ClusterConfig,
    "Service: log": LogConfig,
    "Service: rate limit": RateLimitConfig,
}


def table(section: str) -> list[list[str]]:
    parts = re.split(r"^## (.+)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    body = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("section", MODELS)
def test_every_field_is_documented_once_and_no_other(section: str) -> None:
    documented = [row[0].strip("`") for row in table(section)]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(MODELS[section].model_fields)
    assert {len(row) for row in table(section)} == {4}


@pytest.mark.parametrize("section", MODELS)
def test_defaults_are_those_of_the_code(section: str) -> None:
    documented = {row[0].strip("`"): row[2] for row in table(section)}
    expected = {}
    for name, field in MODELS[section].model_fields.items():
        nested = isinstance(field.default, BaseModel)
        plain = "null" if field.default is None else "see below" if nested else str(field.default)
        expected[name] = "required" if field.is_required() else plain
    assert documented == expected


def test_every_model_of_the_configuration_has_a_section() -> None:
    named = {field.annotation for field in ServiceConfig.model_fields.values()}
    nested = {each for annotation in named for each in (annotation, *getattr(annotation, "__args__", ()))}
    ours = {each for each in nested if isinstance(each, type) and issubclass(each, BaseModel)}
    assert ours == {*MODELS.values(), QueueDefinition} - {ServiceConfig}, "queues are documented in cluster.md"


def test_the_example_is_a_good_configuration() -> None:
    example = DOCUMENT.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    config = ServiceConfig.parse(yaml.safe_load(example), base=Path("/etc/raywise"))
    assert (config.listen.port, config.queues[0].quota, config.log.format) == (8443, {"A100-SXM4-40GB": 4}, "json")
