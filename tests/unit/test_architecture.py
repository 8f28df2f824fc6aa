"""The rules of the design that hold for every source file: which way imports point, what is pure, how long files get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("workloads", "cluster", "scheduler", "dashboards")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
COMPOSITION_ROOTS = ("scheduler/cli/", "scheduler/service/app.py", "scheduler/service/main.py")
PURE = sorted(
    path
    for pattern in (
        "scheduler/types.py",
        "scheduler/states.py",
        "scheduler/estimate/*.py",
        "scheduler/policy/*.py",
        "scheduler/engine/reconcile.py",
        "scheduler/engine/learn.py",
        "scheduler/engine/progress.py",
        "scheduler/engine/moves.py",
        "scheduler/engine/launch.py",
        "scheduler/admission/trial.py",
        "scheduler/service/readiness.py",
        "scheduler/doctor/f*.py",
        "scheduler/doctor/home.py",
        "scheduler/doctor/judge.py",
        "scheduler/doctor/machine.py",
        "scheduler/doctor/ray_cluster.py",
    )
    for path in ROOT.glob(pattern)
    if path.name not in ("model_profile.py", "tracing.py", "subjects.py", "repeats.py", "fitting.py")
)
IMPURE_MODULES = {"ray", "torch", "transformers", "time", "datetime", "random", "secrets", "uuid", "os", "sqlite3"} | {
    *(
        "subprocess",
        "threading",
        "multiprocessing",
        "asyncio",
        "socket",
        "requests",
        "httpx",
        "urllib",
        "shutil",
        "tempfile",
    )
}
IMPURE_METHODS = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "exists",
    "is_file",
    "is_dir",
    "iterdir",
    "glob",
}
LIGHT = ("spec", "loading", "job", "errors", "quantities", "inputs")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt], path: Path) -> set[str]:
    """Modules that these nodes import, in full; a relative import is resolved to the package it means."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            found |= {".".join([*base, *((node.module or alias.name).split("."))]) for alias in node.names}
    return found


def absolute_imports(path: Path) -> set[str]:
    nodes = ast.walk(tree(path))
    return {
        name
        for node in nodes
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }


def ours(path: Path) -> set[str]:
    """Our own packages that a file reaches, by absolute or relative import."""
    names = {name.split(".")[0] for name in imported(ast.walk(tree(path)), path)}
    return (names & set(PACKAGES)) - {path.relative_to(ROOT).parts[0]}


def allowed(path: Path) -> set[str]:
    match path.relative_to(ROOT).parts[0]:
        case "workloads":
            return set()
        case "cluster":
            return {"workloads"}
        case "scheduler":
            composes = relative(path).startswith(COMPOSITION_ROOTS)
            return {"workloads", "cluster"} | ({"dashboards"} if composes else set())
        case _:
            return {"workloads", "cluster", "scheduler"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    assert ours(path) <= allowed(path)


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).startswith("workloads/")], ids=relative)
def test_workloads_speaks_of_itself_only_relatively(path: Path) -> None:
    """It is shipped to the cluster under another name, where `workloads` may be the user's own module."""
    assert not {name for name in absolute_imports(path) if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", [p for p in SOURCES if relative(p).startswith("dashboards/")], ids=relative)
def test_dashboards_know_neither_the_command_line_nor_the_service(path: Path) -> None:
    names = imported(ast.walk(tree(path)), path)
    assert not {name for name in names if name.startswith(("scheduler.cli", "scheduler.service"))}


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_what_decides_is_pure(path: Path) -> None:
    body = list(ast.walk(tree(path)))
    assert not {name.split(".")[0] for name in imported(iter(body), path)} & IMPURE_MODULES
    calls = [node.func for node in body if isinstance(node, ast.Call)]
    assert not [call.id for call in calls if isinstance(call, ast.Name) and call.id in ("open", "input", "print")]
    assert not [call.attr for call in calls if isinstance(call, ast.Attribute) and call.attr in IMPURE_METHODS]


def test_the_pure_files_are_the_ones_that_decide() -> None:
    """A glob that finds nothing would prove nothing."""
    names = {relative(path) for path in PURE}
    assert len(names) >= 17
    assert {"scheduler/policy/market.py", "scheduler/estimate/cost_model.py", "scheduler/engine/moves.py"} <= names


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_fits_in_a_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 500


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "unit").rglob("*.py")), ids=relative)
def test_a_unit_test_file_fits_in_a_head_too(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 500


@pytest.mark.parametrize("name", LIGHT)
def test_reading_a_spec_needs_neither_torch_nor_ray(name: str) -> None:
    path = ROOT / "workloads" / f"{name}.py"
    top = {each.split(".")[0] for each in imported(tree(path).body, path)}
    assert not top & {"torch", "ray", "transformers"}


@pytest.mark.parametrize(
    "code",
    [
        "import raywise; raywise.Client",
        "import workloads, cluster, scheduler, dashboards, workloads.loading",
        "import scheduler.engine, scheduler.policy, scheduler.store, scheduler.estimate.candidates",
        "import scheduler.service.app, scheduler.service.runtime",
        "import raywise; sys.argv = ['raywise', '--help']\ntry: raywise.main()\nexcept SystemExit: pass",
    ],
    ids=["the Python client", "the packages", "what decides", "the service", "raywise --help"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    assert loaded(code, "torch", "ray", "transformers", "pandas") == []


def test_a_command_that_only_asks_the_service_loads_nothing_that_decides() -> None:
    """Half a second of a core, each time."""
    assert loaded("import raywise, scheduler.cli", "numpy", "pyarrow", "scheduler.admission", "scheduler.policy") == []


def loaded(code: str, *modules: str) -> list[str]:
    """Those of the modules that a new process has loaded after this code."""
    program = f"import sys\n{code}\nprint('loaded:', *(name for name in {modules} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout.rsplit("loaded:", 1)[1].split()
