"""The Kubernetes objects are what Kubernetes takes, and fit one another.

Kubernetes' own objects are checked against its published JSON schemas, in which no unknown field is allowed. Of the
RayCluster, pod templates are checked so too; its own fields against the list below, and by what Ray's autoscaler makes
of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scheduler.service.access_log import QUIET_PATHS
from scheduler.service.config import ServiceConfig

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "cluster" / "deploy" / "kubernetes"
KUBERNETES = "1.37"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS = [(path.name, each) for path in FILES for each in yaml.safe_load_all(path.read_text()) if each]

# Fields of a RayCluster of KubeRay 1.5, and what they must be. Pod templates are checked by Kubernetes' own schema.
TEMPLATE = "a pod template"
GROUP = {"rayStartParams": dict, "labels": dict, "resources": dict, "template": TEMPLATE}
RAY_CLUSTER = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": {
        "redisAddress": str,
        "redisUsername": dict,
        "redisPassword": {"value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}},
        "externalStorageNamespace": str,
    },
    "headGroupSpec": GROUP | {"serviceType": str, "headService": dict, "enableIngress": bool},
    "workerGroupSpecs": [
        GROUP
        | {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "numOfHosts": int,
            "idleTimeoutSeconds": int,
            "suspend": bool,
        }
    ],
    "suspend": bool,
}
REQUIRED = {"headGroupSpec": {"template"}, "workerGroupSpecs": {"groupName", "template", "minReplicas", "maxReplicas"}}


def named(kind: str, name: str) -> Any:
    (found,) = [each for _, each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def ray_cluster() -> Any:
    return named("RayCluster", "raywise-ray")


def ray_groups() -> list[Any]:
    spec = ray_cluster()["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods() -> Iterator[tuple[str, Any]]:
    """Every pod's spec, by what it is of."""
    yield "service", named("Deployment", "raywise")["spec"]["template"]["spec"]
    for group in ray_groups():
        yield group.get("groupName", "head"), group["template"]["spec"]


PODS = dict(pods())


def values(tree: Any, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value, key)


def problems(data: Any, allowed: Any, where: str) -> list[str]:
    """What of a RayCluster is not in the list."""
    if allowed == TEMPLATE:
        return template_problems(data, where)
    if isinstance(allowed, list):
        return [said for index, each in enumerate(data) for said in problems(each, allowed[0], f"{where}.{index}")]
    if isinstance(allowed, type):
        return [] if type(data) is allowed else [f"{where} is no {allowed.__name__}"]
    if not isinstance(data, dict):
        return [f"{where} is no mapping"]
    unknown = [f"{where}.{name} is unknown" for name in data if name not in allowed]
    known = [
        said for name in data if name in allowed for said in problems(data[name], allowed[name], f"{where}.{name}")
    ]
    return unknown + known


def template_problems(template: Any, where: str) -> list[str]:
    try:
        validate({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})
    except kubernetes_validate.ValidationError as error:
        return [f"{where}: {error.message}"]
    return []


def validate(data: Any) -> None:
    assert kubernetes_validate.validate(data, KUBERNETES, strict=True) == KUBERNETES


@pytest.mark.parametrize(
    ("file", "data"),
    [each for each in OBJECTS if each[1]["kind"] != "RayCluster"],
    ids=lambda x: x if isinstance(x, str) else f"{x['kind']} {x['metadata']['name']}",
)
def test_kubernetes_takes_it(file: str, data: Any) -> None:
    validate(data)
    assert data["metadata"].get("namespace", "raywise") == "raywise"


def test_the_check_finds_what_is_wrong() -> None:
    deployment = named("Deployment", "raywise")
    for wrong in ({"replica": 1}, {"replicas": "one"}):
        with pytest.raises(kubernetes_validate.ValidationError):
            validate(deployment | {"spec": deployment["spec"] | wrong})
    spec = ray_cluster()["spec"]
    assert problems(spec | {"rayversion": "2"}, RAY_CLUSTER, "spec") == ["spec.rayversion is unknown"]
    assert problems(spec | {"suspend": "no"}, RAY_CLUSTER, "spec") == ["spec.suspend is no bool"]
    head = spec["headGroupSpec"] | {"template": {"spec": {"container": []}}}
    assert problems(spec | {"headGroupSpec": head}, RAY_CLUSTER, "spec")


def test_the_ray_cluster_has_the_fields_of_one() -> None:
    cluster = ray_cluster()
    assert (cluster["apiVersion"], set(cluster)) == ("ray.io/v1", {"apiVersion", "kind", "metadata", "spec"})
    assert problems(cluster["spec"], RAY_CLUSTER, "spec") == []
    assert REQUIRED["headGroupSpec"] <= set(cluster["spec"]["headGroupSpec"])
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert REQUIRED["workerGroupSpecs"] <= set(group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_itself_reads_devices_and_labels_from_it() -> None:
    """By the code with which Ray's autoscaler reads a RayCluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    types = _derive_autoscaling_config_from_ray_cr(ray_cluster())["available_node_types"]
    assert types["t4"]["resources"]["GPU"] == 1
    assert types["t4"]["labels"]["raywise.io/device"] == "T4"
    assert types["t4"]["labels"]["raywise.io/instance"] == "aws_g4dn.xlarge"
    assert types["cpu"]["resources"]["CPU"] == 8
    assert "GPU" not in types["cpu"]["resources"]


def test_the_control_service_survives_its_head_and_asks_for_a_token() -> None:
    redis = ray_cluster()["spec"]["gcsFaultToleranceOptions"]
    assert redis["redisAddress"].startswith("redis://")
    assert redis["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "raywise-redis", "key": "password"}
    for group in ray_groups():
        (container,) = group["template"]["spec"]["containers"]
        assert {each["name"]: each["value"] for each in container["env"]}["RAY_AUTH_MODE"] == "token"
        assert "labels" not in group["rayStartParams"], "KubeRay takes them from the group"


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_of_the_restricted_standard(name: str) -> None:
    pod = PODS[name]
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-gpu)?", container["image"]), "a version, never `latest`"
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_the_service_may_do_nothing_in_the_cluster() -> None:
    kinds = [each["kind"] for _, each in OBJECTS]
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & set(kinds)
    assert named("ServiceAccount", "raywise")["automountServiceAccountToken"] is False


def test_one_service_at_a_time() -> None:
    spec = named("Deployment", "raywise")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (container,) = PODS["service"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 45, "5 s for requests, 30 s for a cycle"


def test_probes_ask_what_the_service_answers_without_a_token() -> None:
    (container,) = PODS["service"]["containers"]
    paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
    assert paths == ["/api/v1/health", "/api/v1/health", "/api/v1/ready"]
    assert set(paths) <= set(QUIET_PATHS)


def config() -> ServiceConfig:
    text = named("ConfigMap", "raywise")["data"]["service.yaml"]
    return ServiceConfig.parse(yaml.safe_load(text), base=Path("/etc/raywise"))


def test_the_configuration_is_one_and_fits_the_pod() -> None:
    (container,) = PODS["service"]["containers"]
    known = config()
    (port,) = container["ports"]
    (service_port,) = named("Service", "raywise")["spec"]["ports"]
    assert known.listen.port == port["containerPort"] == service_port["port"]
    assert service_port["targetPort"] == port["name"]
    assert known.listen.url == f"https://raywise.raywise.svc:{known.listen.port}"
    assert known.store_env in {each["name"] for each in container["env"]}
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert known.tls is not None
    for path in (known.tls.cert, known.tls.key, known.cluster.token_file, known.home, known.runs):
        assert [mount for mount in mounts if str(path).startswith(f"{mount}/")], f"{path} is on no volume"
    assert container["args"][-1] in mounts
    cluster = ray_cluster()
    host = f"{cluster['metadata']['name']}-head-svc.{cluster['metadata']['namespace']}.svc"
    assert (known.cluster.address, known.cluster.dashboard_url) == (f"{host}:6379", f"http://{host}:8265")


def test_every_node_sees_the_runs_by_the_services_path() -> None:
    claims = {
        name: {
            v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        }
        for name, pod in PODS.items()
    }
    where = {}
    for name, pod in PODS.items():
        (container,) = pod["containers"]
        where[name] = {
            claims[name][m["name"]]: m["mountPath"] for m in container["volumeMounts"] if m["name"] in claims[name]
        }
    shared = {found["raywise-shared"] for found in where.values()}
    assert len(where) == len(PODS) and len(shared) == 1
    assert str(config().runs).startswith(f"{shared.pop()}/")
    assert named("PersistentVolumeClaim", "raywise-shared")["spec"]["accessModes"] == ["ReadWriteMany"]
    users = {(pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) for pod in PODS.values()}
    assert len(users) == 1, "what one writes, the other reads"


def test_whatever_is_named_is_there() -> None:
    objects = [each for _, each in OBJECTS]
    secrets = {each["metadata"]["name"]: set(each["stringData"]) for each in objects if each["kind"] == "Secret"}
    for reference in values(objects, "secretKeyRef"):
        assert reference["key"] in secrets[reference["name"]]
    assert set(values(objects, "secretName")) <= set(secrets)
    claims = {each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"}
    assert set(values(objects, "claimName")) == claims
    for name, pod in PODS.items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        used = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert used == volumes, name


def test_selectors_find_their_pods() -> None:
    labels = named("Deployment", "raywise")["spec"]["template"]["metadata"]["labels"]
    assert named("Deployment", "raywise")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert named("Service", "raywise")["spec"]["selector"].items() <= labels.items()
    policies = {each["metadata"]["name"]: each["spec"] for _, each in OBJECTS if each["kind"] == "NetworkPolicy"}
    assert policies["raywise"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policies["raywise"]["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = policies["raywise"]["ingress"]
    assert [each["port"] for each in ingress["ports"]] == [config().listen.port]
    ray = {"ray.io/cluster": ray_cluster()["metadata"]["name"]}
    assert policies["raywise-ray"]["podSelector"]["matchLabels"] == ray
    assert all(rule.get("from") for policy in policies.values() for rule in policy["ingress"]), (
        "open to nobody at large"
    )


def test_no_secret_has_a_value() -> None:
    """But for the store's path, which is none."""
    for _, each in OBJECTS:
        for key, value in each.get("stringData", {}).items():
            assert value.startswith("replace-me") or (key, value) == ("url", "/var/lib/raywise/home/raywise.db")


def test_kustomize_applies_all_but_the_example_secrets() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in FILES} - {"secrets.example.yaml"}
