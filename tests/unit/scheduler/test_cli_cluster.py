"""`raywise cluster`: what is rented, what it costs, and what is run for it. Programs that note how they were called stand
for the clouds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler.v2.schema import ClusterStatus, NodeInfo
from ray.autoscaler.v2.utils import ClusterStatusFormatter
from typer.testing import CliRunner, Result

from cluster.credentials import VARIABLES
from scheduler.cli import app, cloud_tools

FAKE = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
with open(folder / "environment", "w") as file:
    json.dump(dict(os.environ), file)
answer = folder / ("-".join([name, *sys.argv[1:3]]) + ".answer")
if answer.exists():
    print(answer.read_text())
if (folder / "fail").exists():
    sys.exit("the cloud said no")
"""
AWS = {
    "provider": {"type": "aws", "name": "team", "region": "us-east-1"},
    "nodes": [
        {"name": "cpu", "device": "cpu", "instance": "aws/m5.xlarge", "rent": {"most": 2, "least": 1}},
        {"name": "t4", "device": "T4", "instance": "aws/g4dn.xlarge", "market": "spot", "rent": {"most": 4}},
    ],
}
KUBERAY: dict[str, Any] = {
    "provider": {"type": "kuberay", "image": "raywise:0.1.0", "head_instance": "aws/m5.xlarge", "pod_monitor": True},
    "nodes": [{"name": "t4", "device": "T4", "instance": "aws/g4dn.xlarge", "rent": {"most": 4}}],
}


class Cloud:
    """Fake `ray` and `kubectl`, and a file that describes a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "cluster.yaml"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("ray", "kubectl"):
            path = self.bin / name
            path.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
            path.chmod(0o755)

    def run(self, verb: str, *arguments: str, data: Any = None, code: int = 0, said: str = "") -> Result:
        if data is not None:
            self.file.write_text(yaml.safe_dump(data))
        result = CliRunner().invoke(app, ["cluster", verb, "--cluster", str(self.file), *arguments], input=said)
        assert result.exit_code == code, result.output
        return result

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def answer(self, text: str, *command: str) -> None:
        (self.folder / ("-".join(command) + ".answer")).write_text(text)


def table(shown: Result) -> dict[str, list[str]]:
    """Cells of the rows of a table, by the first."""
    rows = [line.split() for line in shown.stdout.splitlines() if line.startswith(" ")]
    return {row[0]: row for row in rows if row}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: None) -> Cloud:
    made = Cloud(tmp_path)
    for names in VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.setenv("KUBECONFIG", "there")
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    return made


def test_render_prints_what_the_launcher_is_told_and_changes_nothing(cloud: Cloud) -> None:
    told = yaml.safe_load(cloud.run("render", data=AWS).stdout)
    assert (told["cluster_name"], set(told["available_node_types"])) == ("team", {"head", "cpu", "t4"})
    assert cloud.run("render", "-o", "out.yaml").stdout == "wrote out.yaml\n"
    assert yaml.safe_load(Path("out.yaml").read_text()) == told
    assert "cannot be written" in cloud.run("render", "-o", "nowhere/out.yaml", code=2).stderr
    assert not cloud.calls()


def test_render_for_kubernetes_has_no_anchors_and_a_monitor_where_it_is_wanted(cloud: Cloud) -> None:
    text = cloud.run("render", data=KUBERAY).stdout
    assert [each["kind"] for each in yaml.safe_load_all(text)] == ["RayCluster", "PodMonitor"]
    assert "&id" not in text
    provider = KUBERAY["provider"] | {"pod_monitor": False}
    assert cloud.run("render", data=KUBERAY | {"provider": provider}).stdout.count("kind: ") == 1


def test_render_for_another_provider_keeps_what_it_knows_too(cloud: Cloud) -> None:
    refused = cloud.run("render", "--provider", "kuberay", data=AWS, code=2)
    assert "provider.image: Field required" in refused.stderr
    node = AWS["nodes"][0]
    data = {"provider": AWS["provider"] | {"image": "ami-01234567"}, "nodes": [node]}
    (told,) = yaml.safe_load_all(cloud.run("render", "--provider", "kuberay", data=data).stdout)
    assert told["metadata"] == {"name": "team", "namespace": "raywise"}
    assert (
        "unknown provider 'mars'\n  hint: one of local, existing"
        in cloud.run("render", "--provider", "mars", code=2).stderr
    )


def test_up_says_what_it_costs_asks_and_runs_ray(cloud: Cloud) -> None:
    refused = cloud.run("up", data=AWS, said="n\n", code=1)
    assert "rent it from aws? [y/N]" in refused.stdout
    assert "nothing was done" in refused.stdout
    assert not cloud.calls()
    assert not (cloud.folder / ".ray").exists()
    lines = table(refused)
    assert lines["cpu"] == ["cpu", "aws/m5.xlarge", "on-demand", "1", "2", "$0.1920", "$0.1920", "$0.3840"]
    assert lines["t4"] == ["t4", "aws/g4dn.xlarge", "spot", "0", "4", "$0.2150", "$0", "$0.8600"]
    assert lines["in"] == ["in", "all", "2", "7", "$0.3840", "$1.4360"]
    assert "note: without provider.image" in refused.stdout
    assert "note: without provider.redis" in refused.stdout

    done = cloud.run("up", said="y\n")
    file = cloud.folder / "home" / "clusters" / "aws-team.yaml"
    assert cloud.calls() == [["ray", "up", str(file), "--yes", "--no-config-cache"]]
    assert yaml.safe_load(file.read_text())["cluster_name"] == "team"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "raywise cluster status --cluster" in done.stdout
    environment = json.loads((cloud.folder / "environment").read_text())
    assert environment["RAY_UP_enable_autoscaler_v2"] == "1"
    assert "PYTHONPATH" not in environment


def test_a_token_is_made_once_for_its_owner_only_and_is_in_no_other_file(cloud: Cloud) -> None:
    assert "the cluster's token is in" in cloud.run("up", "--yes", data=AWS).stdout
    path = cloud.folder / ".ray" / "auth_token"
    token = path.read_text()
    assert (len(token), path.stat().st_mode & 0o777) == (64, 0o600)
    assert "token is in" not in cloud.run("up", "--yes").stdout
    assert path.read_text() == token
    assert token not in (cloud.folder / "home" / "clusters" / "aws-team.yaml").read_text()


def test_up_applies_a_ray_cluster_with_as_many_pods_as_there_are(cloud: Cloud) -> None:
    cloud.run("up", "--yes", data=KUBERAY)
    file = cloud.folder / "home" / "clusters" / "kuberay-raywise.yaml"
    where = ["raywise", "--namespace", "raywise", "--output", "json"]
    asked = ["kubectl", "get", "raycluster", *where, "--ignore-not-found"]
    assert cloud.calls() == [asked, ["kubectl", "apply", "-f", str(file)]]

    def replicas() -> int:
        told = next(yaml.safe_load_all(file.read_text()))
        return int(told["spec"]["workerGroupSpecs"][0]["replicas"])

    assert replicas() == 0
    for there, kept in ((3, 3), (9, 4)):
        live = {"spec": {"workerGroupSpecs": [{"groupName": "t4", "replicas": there}, {"groupName": "gone"}]}}
        cloud.answer(json.dumps(live), "kubectl", "get", "raycluster")
        cloud.run("up", "--yes")
        assert replicas() == kept


def test_down_asks_and_ends_all_of_it(cloud: Cloud) -> None:
    assert "end team on aws with all of its nodes? [y/N]" in cloud.run("down", data=AWS, said="\n", code=1).stdout
    assert not cloud.calls()
    assert "ended: team on aws" in cloud.run("down", "--yes").stdout
    cloud.run("down", "--yes", data=KUBERAY)
    folder = cloud.folder / "home" / "clusters"
    assert cloud.calls() == [
        ["ray", "down", str(folder / "aws-team.yaml"), "--yes"],
        ["kubectl", "delete", "-f", str(folder / "kuberay-raywise.yaml"), "--ignore-not-found"],
    ]


def test_status_counts_what_ray_says_and_what_it_costs_now(cloud: Cloud) -> None:
    nodes = [
        NodeInfo("", kind, name, "") for kind, name in (("head", "i-0"), ("t4", "i-1"), ("t4", "i-2"), ("old", "i-3"))
    ]
    file = cloud.folder / "home" / "clusters" / "aws-team.yaml"
    failed = cloud.run("status", data=AWS, code=1)
    assert "said nothing of nodes" in failed.stderr
    assert cloud.calls() == [["ray", "exec", str(file), "RAY_AUTH_MODE=token ray status"]]
    text = ClusterStatusFormatter.format(ClusterStatus(active_nodes=nodes))
    (cloud.bin / "ray").write_text(f"#!{sys.executable}\nprint({text!r})\n")
    shown = cloud.run("status")
    lines = table(shown)
    assert lines["t4"] == ["t4", "spot", "2", "0", "0", "4", "$0.2150", "$0.4300"]
    assert lines["cpu"][2:4] == ["0", "0"]
    assert lines["old"][1:] == ["1", "0", "?", "?", "not", "in", "the", "definition"]
    assert lines["in"] == ["in", "all", "4", "0", "$0.6220", "without", "old"]
    answer = json.loads(cloud.run("status", "--json").stdout)
    assert answer == {
        "there": {"head": 1, "t4": 2, "old": 1},
        "coming": {},
        "usd_h": pytest.approx(0.622),
        "unpriced": ["old"],
        "remarks": [],
    }


def test_status_counts_pods(cloud: Cloud) -> None:
    def pod(group: str, phase: str) -> dict[str, Any]:
        return {"metadata": {"labels": {"ray.io/group": group}}, "status": {"phase": phase}}

    pods = [pod("headgroup", "Running"), pod("t4", "Running"), pod("t4", "Pending")]
    cloud.answer(json.dumps({"status": {"state": "suspended"}}), "kubectl", "get", "raycluster")
    cloud.answer(json.dumps({"items": pods}), "kubectl", "get", "pods")
    shown = cloud.run("status", data=KUBERAY)
    assert "note: RayCluster is suspended" in shown.stdout
    lines = table(shown)
    assert lines["t4"] == ["t4", "on-demand", "1", "1", "0", "4", "$0.5260", "$1.0520"]
    assert [call[:3] for call in cloud.calls()] == [["kubectl", "get", "raycluster"], ["kubectl", "get", "pods"]]
    assert "ray.io/cluster=raywise" in cloud.calls()[1]
    cloud.answer("not json", "kubectl", "get", "pods")
    assert "printed no JSON" in cloud.run("status", code=1).stderr


@pytest.mark.parametrize("verb", ["render", "up", "down", "status"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"nodes": []}, "nothing is rented for it\n  hint: `raywise up --cluster"),
        (
            {"provider": {"type": "existing", "address": "10.0.0.1:6379"}},
            "nothing is rented for it\n  hint: `raywise up --address 10.0.0.1:6379`",
        ),
        (
            AWS | {"nodes": [AWS["nodes"][0] | {"rent": {"most": 1, "least": 2}}]},
            "nodes.0.rent.least: 2 are wanted at least, at most 1 may be\n  hint: ",
        ),
    ],
    ids=["this machine", "a cluster that is there", "least above most"],
)
def test_what_cannot_be_rented_is_refused_with_what_to_do(cloud: Cloud, verb: str, data: Any, says: str) -> None:
    assert says in cloud.run(verb, data=data, code=2).stderr
    assert not cloud.calls()


@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_nothing_is_run_without_credentials(cloud: Cloud, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setattr("cluster.credentials._vendor", lambda machine: "")
    said = cloud.run(verb, data=AWS, code=1).stderr
    assert "no credentials for aws: looked at AWS_ACCESS_KEY_ID" in said
    assert "hint: run `aws configure`" in said
    assert "no credentials for kuberay" in cloud.run(verb, data=KUBERAY, code=1).stderr
    assert not cloud.calls()


def test_what_is_missing_on_this_machine_is_said(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    redis = {"address": "a:1", "password_file": str(tmp_path / "none")}
    data = AWS | {"provider": AWS["provider"] | {"redis": redis}}
    assert "password_file: there is no file" in cloud.run("up", data=data, code=1).stderr
    gcp = {"provider": {"type": "gcp", "project": "team-1234", "zone": "us-central1-a"}}
    monkeypatch.setattr(cloud_tools, "find_spec", lambda name: None)
    assert (
        "Ray's launcher needs googleapiclient for gcp\n  hint: pip install" in cloud.run("up", data=gcp, code=1).stderr
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "ray was not found\n  hint: " in cloud.run("up", data=AWS, code=1).stderr
    assert "kubectl was not found\n  hint: install it" in cloud.run("down", data=KUBERAY, code=1).stderr


def test_a_program_that_fails_ends_the_command(cloud: Cloud) -> None:
    (cloud.folder / "fail").touch()
    assert "`ray up` ended with 1" in cloud.run("up", "--yes", data=AWS, code=1).stderr
    said = cloud.run("status", data=KUBERAY, code=1).stderr
    assert "`kubectl get` ended with 1" in said
    assert "the cloud said no" in said


def test_a_price_that_is_not_known_is_said(cloud: Cloud) -> None:
    node = {"name": "fpga", "device": "FPGA-VU47P", "instance": "aws/f2.6xlarge", "market": "spot", "number": 2}
    shown = cloud.run("up", "--yes", data=AWS | {"nodes": [node], "rent_cap_usd_h": 5}).stdout
    line = next(line for line in shown.splitlines() if line.startswith(" fpga"))
    assert line.split()[-6:] == ["?", "?", "?", "price", "not", "known"]
    assert "without fpga" in shown
    assert "the service rents for $5 an hour at most" in shown
