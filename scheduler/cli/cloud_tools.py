"""The programs that rent and end a cluster, `ray` and `kubectl`: what they need on this machine, and how they run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cluster.credentials import missing_credentials
from cluster.provider_definition import KubeRayProvider, LaunchedProvider, RentingProvider
from workloads.errors import RaywiseError

LIBRARIES = {
    "aws": ("boto3", "boto3"),
    "gcp": ("googleapiclient", "google-api-python-client google-auth-httplib2"),
    "azure": (
        "azure.identity",
        "azure-identity azure-mgmt-compute azure-mgmt-network azure-mgmt-resource azure-common",
    ),
}
"""What Ray's launcher imports for a cloud, and how it is installed."""
WHERE = {
    "ray": "it comes with Ray: activate the environment that raywise is in",
    "kubectl": "install it: https://kubernetes.io/docs/tasks/tools/",
}


class ToolMissing(RaywiseError):
    """Something on this machine is missing that a cloud needs."""


class ToolFailed(RaywiseError):
    """`ray` or `kubectl` ended with an error, which it has printed itself."""


def tool_of(provider: RentingProvider) -> str:
    """The program that rents at this provider."""
    return "kubectl" if isinstance(provider, KubeRayProvider) else "ray"


def check_machine(provider: RentingProvider) -> None:
    """Look for all that the provider's program needs, before anything is rented. Raises ToolMissing."""
    tool, cloud = tool_of(provider), str(getattr(provider, "type", ""))
    _path_of(tool)
    if cloud in LIBRARIES:
        module, packages = LIBRARIES[cloud]
        if not _importable(module):
            raise ToolMissing(f"Ray's launcher needs {module} for {cloud}\n  hint: pip install {packages}")
    missing = missing_credentials(cloud, os.environ)
    if missing is not None:
        raise ToolMissing(missing)
    if isinstance(provider, LaunchedProvider) and provider.redis is not None and provider.redis.password_file:
        path = Path(provider.redis.password_file).expanduser()
        if not path.is_file():
            raise ToolMissing(f"provider.redis.password_file: there is no file {path}")


def make_token(provider: LaunchedProvider) -> Path | None:
    """Write a new token for the cluster where its file is not there; the file then, for its owner only."""
    path = Path(provider.token_file).expanduser()
    if path.is_file():
        return None
    import secrets

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(secrets.token_hex(32))
    return path


def run(tool: str, *arguments: str) -> None:
    """Run a program and show what it prints. Raises ToolMissing, ToolFailed."""
    result = subprocess.run([_path_of(tool), *arguments], env=_environment(), check=False)
    if result.returncode:
        raise ToolFailed(_ended(tool, arguments, result.returncode))


def output(tool: str, *arguments: str) -> str:
    """What a program prints. Raises ToolMissing, ToolFailed."""
    command = [_path_of(tool), *arguments]
    result = subprocess.run(command, env=_environment(), check=False, capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()[-5:]
        raise ToolFailed("\n  ".join([_ended(tool, arguments, result.returncode), *said]))
    return result.stdout


def output_json(tool: str, *arguments: str) -> Any:
    """JSON that a program prints. Raises ToolMissing, ToolFailed."""
    text = output(tool, *arguments)
    try:
        return json.loads(text)
    except ValueError as error:
        raise ToolFailed(f"`{tool} {arguments[0]}` printed no JSON: {error}") from error


def _ended(tool: str, arguments: tuple[str, ...], code: int) -> str:
    return f"`{tool} {arguments[0]}` ended with {code}"


def _path_of(tool: str) -> str:
    """The program, on the path or beside this Python."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(tool) or (shutil.which(tool, path=beside) if tool == "ray" else None)
    if found is None:
        raise ToolMissing(f"{tool} was not found\n  hint: {WHERE[tool]}")
    return found


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _environment() -> dict[str, str]:
    """Ours, without what would lead `ray` to other modules, and with the autoscaler that is meant."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"RAY_UP_enable_autoscaler_v2": "1", "RAY_USAGE_STATS_ENABLED": "0"}
