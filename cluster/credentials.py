"""Whether this machine has what a cloud asks for, before anything is run: by the places where the clouds' own tools
look. It reads no secret: a file that is there may still be refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VARIABLES = {
    "aws": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "gcp": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "azure": ("AZURE_CLIENT_ID",),
    "kuberay": ("KUBECONFIG",),
}
"""Any of these says where they are."""
FILES = {
    "aws": ("~/.aws/credentials", "~/.aws/config"),
    "gcp": ("~/.config/gcloud/application_default_credentials.json",),
    "azure": ("~/.azure/azureProfile.json",),
    "kuberay": ("~/.kube/config", "/var/run/secrets/kubernetes.io/serviceaccount/token"),
}
MOVED = {
    "aws": ("AWS_SHARED_CREDENTIALS_FILE", ""),
    "gcp": ("CLOUDSDK_CONFIG", "application_default_credentials.json"),
    "azure": ("AZURE_CONFIG_DIR", "azureProfile.json"),
}
"""A variable that moves the file, and its name where it moves the folder."""
HOW = {
    "aws": "run `aws configure`, or set AWS_PROFILE",
    "gcp": "run `gcloud auth application-default login`",
    "azure": "run `az login`",
    "kuberay": "point KUBECONFIG to your cluster's file",
}
MACHINES = Path("/sys/devices/virtual/dmi/id")
VENDORS = {"aws": "Amazon EC2", "gcp": "Google", "azure": "Microsoft Corporation"}
"""Who made this machine: one of the cloud itself may have an identity of its own."""


def missing_credentials(provider: str, environment: Mapping[str, str], machine: Path = MACHINES) -> str | None:
    """Where credentials of a provider were looked for in vain, with what to do; None where there are some."""
    home = Path(environment.get("HOME") or Path.home())
    files = [Path(name.replace("~", str(home), 1)) for name in FILES[provider]]
    if provider in MOVED:
        variable, name = MOVED[provider]
        if environment.get(variable):
            files.insert(0, Path(environment[variable]) / name)
    if any(environment.get(name) for name in VARIABLES[provider]) or any(path.is_file() for path in files):
        return None
    if provider in VENDORS and _vendor(machine) == VENDORS[provider]:
        return None
    places = ", ".join([*VARIABLES[provider], *map(str, files)])
    return f"no credentials for {provider}: looked at {places}\n  hint: {HOW[provider]}"


def _vendor(machine: Path) -> str:
    try:
        return (machine / "sys_vendor").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
