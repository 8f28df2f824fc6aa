"""The systemd unit and the Dockerfile: what they promise, and that they fit the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from scheduler.cli.verbs import ELSEWHERE
from scheduler.service import main, runtime
from scheduler.service.config import ServiceConfig
from scheduler.service.readiness import MIN_PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "cluster" / "deploy"
UNIT = DEPLOY / "systemd" / "raywise.service"
DROP_IN = DEPLOY / "systemd" / "raywise-local-cluster.conf"
DOCKERFILE = DEPLOY / "Dockerfile"
SECTIONS = {"Unit", "Service", "Install"}


def settings(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The settings of a unit file by section, as systemd reads its lines. Raises ValueError."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
            if section not in SECTIONS:
                raise ValueError(f"unknown section {section}")
            found.setdefault(section, [])
        elif (match := re.fullmatch(r"([A-Za-z]+)=(.*)", line)) and section:
            found[section].append((match[1], match[2]))
        else:
            raise ValueError(f"no setting: {line!r}")
    return found


def service() -> dict[str, str]:
    pairs = settings(UNIT)["Service"]
    assert len(pairs) == len(dict(pairs)), "a setting stands twice"
    return dict(pairs)


@pytest.mark.parametrize("with_drop_in", [False, True], ids=["alone", "with the drop-in"])
def test_systemd_takes_it(tmp_path: Path, with_drop_in: bool) -> None:
    """By systemd's own check where it is installed; its lines are read either way."""
    text = UNIT.read_text().replace("/opt/raywise/bin/raywise", shutil.which("true") or "/bin/true")
    (tmp_path / "raywise.service").write_text(text)
    assert set(settings(UNIT)) == SECTIONS
    if with_drop_in:
        assert set(settings(DROP_IN)) == {"Service"}
        (tmp_path / "raywise.service.d").mkdir()
        shutil.copy(DROP_IN, tmp_path / "raywise.service.d")
    if shutil.which("systemd-analyze") is not None:
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "raywise.service")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_a_line_that_is_no_setting_is_found(tmp_path: Path) -> None:
    for wrong in ("[Servce]\n", "[Service]\nUser raywise\n", "User=raywise\n"):
        (tmp_path / "x.service").write_text(wrong)
        with pytest.raises(ValueError, match=r"unknown section|no setting"):
            settings(tmp_path / "x.service")


def test_it_runs_what_there_is() -> None:
    unit = service()
    assert unit["ExecStart"].split()[1:] == ["serve", "--config", "/etc/raywise/service.yaml"]
    assert unit["ExecStartPre"].split()[-1] == "--check"
    assert "serve" in ELSEWHERE
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")


def test_it_is_given_the_time_that_it_takes() -> None:
    unit = service()
    assert int(unit["TimeoutStopSec"]) > main.DRAIN_S + runtime.STOP_S
    assert int(unit["WatchdogSec"]) >= 2 * MIN_PATIENCE_S, "longer than a slow cycle and the longest wait between two"
    assert unit["Restart"] == "on-failure"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "read-only"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictNamespaces", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallArchitectures", "native"),
        ("UMask", "0077"),
        ("StateDirectoryMode", "0700"),
        ("User", "raywise"),
        ("LimitNOFILE", "65536"),
    ],
)
def test_it_may_do_little(setting: str, value: str) -> None:
    assert service()[setting] == value


def test_a_local_cluster_outlives_the_service() -> None:
    changes = dict(settings(DROP_IN)["Service"])
    assert changes["KillMode"] == "process"
    assert changes["PrivateTmp"] == "no", "Ray's sockets are in /tmp"
    assert service()["KillMode"] == "mixed"


def test_the_example_configuration_is_one() -> None:
    config = ServiceConfig.load(DEPLOY / "service.yaml")
    assert (config.home, config.listen.port) == ("/var/lib/raywise/home", 8443)
    commented = re.sub(r"(?m)^# (?=tls:|cluster:|  )", "", (DEPLOY / "service.yaml").read_text())
    whole = ServiceConfig.parse(yaml.safe_load(commented), base=Path("/etc/raywise"))
    assert whole.tls is not None
    assert whole.cluster.address == "10.0.0.5:6379"


# The image.


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines put together."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text())
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def project() -> dict[str, str]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def constraint(package: str) -> str:
    (line,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith(f"{package}==")]
    return line.partition("==")[2]


def test_the_image_is_of_pinned_versions() -> None:
    (base,) = of("ARG")
    assert base == f"RAY_IMAGE=rayproject/ray:{constraint('ray')}-py311-cpu"
    assert {rest.split()[0] for rest in of("FROM")} == {"${RAY_IMAGE}"}
    (install,) = [rest for rest in of("RUN") if "pip install" in rest]
    assert "--constraint /tmp/constraints.txt" in install and "--no-cache-dir" in install
    assert f'org.opencontainers.image.version="{project()["version"]}"' in of("LABEL")[0]
    assert f"raywise:{project()['version']}" in DOCKERFILE.read_text()


def test_the_image_runs_as_nobody_special_and_has_no_secret() -> None:
    assert of("USER") == ["1000:100"]
    known = [word for word, _ in instructions()]
    assert known.index("USER") < known.index("ENTRYPOINT")
    assert "ADD" not in known
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?i)(token|password|secret)\s*=|curl|wget|sudo|:latest|chmod 777", text)
    assert {word for word, _ in instructions()} <= {
        *("ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD")
    }


def test_commands_are_lists_so_that_signals_arrive() -> None:
    assert of("ENTRYPOINT") == ['["raywise"]']
    assert of("CMD") == ['["serve", "--config", "/etc/raywise/service.yaml"]']
    assert of("EXPOSE") == ["8443"]


def test_all_that_is_copied_exists_and_reaches_the_build() -> None:
    sources = [part for rest in of("COPY") if "--from" not in rest for part in rest.split()[1:-1]]
    assert set(project_packages()) <= set(sources)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert "*" in ignored, "what is not named does not get into the image"


def project_packages() -> list[str]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(data["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
