"""`docs/deploy.md` speaks of files, commands and verbs that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from scheduler.cli import app
from scheduler.cli.verbs import ELSEWHERE

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "deploy.md").read_text()
KUBERNETES = ROOT / "cluster" / "deploy" / "kubernetes"


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"cluster/deploy/[\w./-]+", TEXT))
    assert len(named) >= 5
    assert [each for each in named if not (ROOT / each).exists()] == []
    links = set(re.findall(r"\]\(([\w.]+\.md)", TEXT))
    assert [each for each in links if not (ROOT / "docs" / each).exists()] == []


def test_every_kubernetes_file_is_explained() -> None:
    table = set(re.findall(r"^\| `(\w[\w.]*\.yaml)` \|", TEXT, flags=re.MULTILINE))
    plain = {"kustomization.yaml", "namespace.yaml", "service.yaml"}
    assert table == {path.name for path in KUBERNETES.glob("*.yaml")} - plain


def test_the_secrets_it_makes_are_those_of_the_example() -> None:
    example = yaml.safe_load_all((KUBERNETES / "secrets.example.yaml").read_text())
    made = set(re.findall(r"create secret (?:generic|tls) (\S+)", TEXT))
    assert made == {each["metadata"]["name"] for each in example}


def test_the_verbs_are_those_of_the_command_line() -> None:
    known = set(ELSEWHERE) | {
        str(each.name or getattr(each.callback, "__name__", "")) for each in app.registered_commands
    }
    used = set(re.findall(r"(?:bin/|\$ |&& |`|raywise )raywise (\w+)", TEXT))
    assert {"up", "down", "doctor", "backup", "restore"} <= used <= known
