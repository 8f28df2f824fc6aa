"""The RayCluster is one that KubeRay takes, and Ray's autoscaler makes of it what the service asks for."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, Provider

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.offers import rented_labels
from cluster.render import pod_monitor, ray_cluster
from cluster.types import SEAT_RESOURCE

KUBERNETES = "1.37"


# Fields of a RayCluster that KubeRay 1.6 and 1.7 take, as far as they are rendered: written down from its custom resource
# definition (`ray.io_rayclusters.yaml`, v1). Pod templates are checked by Kubernetes' own schema.
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
SECONDS = {"type": "integer", "minimum": 0}
LABELS = {
    "type": "object",
    "propertyNames": {"pattern": r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"},
    "additionalProperties": {"type": "string", "pattern": r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"},
}
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+([KMGTPE]i?|m)?$"}}
SECRET = {"type": "object", "required": ["name", "key"], "properties": {"name": TEXT, "key": TEXT}}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


GROUP = {"rayStartParams": TEXTS, "labels": LABELS, "resources": QUANTITIES, "template": {"type": "object"}}
SPEC = closed(
    {
        "rayVersion": TEXT,
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": closed(
            {
                "version": {"enum": ["v1", "v2"]},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "idleTimeoutSeconds": SECONDS,
                "env": {"type": "array"},
                "volumeMounts": {"type": "array"},
                "resources": {"type": "object"},
                "securityContext": {"type": "object"},
            }
        ),
        "gcsFaultToleranceOptions": closed(
            {
                "redisAddress": TEXT,
                "externalStorageNamespace": TEXT,
                "redisPassword": closed({"valueFrom": closed({"secretKeyRef": SECRET})}),
            }
        ),
        "headGroupSpec": closed(GROUP, "template"),
        "workerGroupSpecs": {
            "type": "array",
            "items": closed(
                GROUP
                | {
                    "groupName": TEXT,
                    "replicas": SECONDS,
                    "minReplicas": SECONDS,
                    "maxReplicas": SECONDS,
                    "idleTimeoutSeconds": SECONDS,
                },
                "groupName",
                "maxReplicas",
                "minReplicas",
                "template",
            ),
        },
    },
    "headGroupSpec",
)
RAY_CLUSTER = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        # The operator takes no longer names, and the rules of DNS labels (RFC 1035).
        "metadata": closed(
            {"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 53}, "namespace": TEXT},
            "name",
        ),
        "spec": SPEC,
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)


def rendered(data: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """As it is read back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(ray_cluster(ClusterDefinition.parse(data, catalog), catalog)))
    return found


def changed(written: dict[str, Any], catalog: Catalog, **provider: Any) -> dict[str, Any]:
    data = copy.deepcopy(written)
    data["provider"] |= provider
    return rendered(data, catalog)


def groups(told: dict[str, Any]) -> dict[str, Any]:
    return {each["groupName"]: each for each in told["spec"]["workerGroupSpecs"]}


@pytest.fixture
def kuberay(written: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return written["kuberay"]


@pytest.fixture
def everything(kuberay: dict[str, Any]) -> dict[str, Any]:
    """With all that can be given."""
    data = copy.deepcopy(kuberay)
    data["provider"] |= {
        "head_instance": "aws/m5.2xlarge",
        "service_account": "raywise-head",
        "pods": data["provider"]["pods"]
        | {
            "fake": {"cpus": 2, "memory_gib": 4},
            "fpga": {"resource": "xilinx.com/fpga-vu47p"},
            "a100": {"tolerations": [{"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}]},
        },
    }
    data["nodes"] = [
        *data["nodes"],
        {"name": "fake", "device": "L4", "emulated_speed": 0.5, "instance": "gcp/g2-standard-4", "number": 2},
        {
            "name": "trn",
            "device": "Trainium1",
            "instance": "aws/trn1.2xlarge",
            "zones": ["a", "b"],
            "rent": {"most": 2},
        },
        {"name": "fpga", "device": "FPGA-VU47P", "instance": "aws/f2.6xlarge", "rent": {"most": 1}},
        {"name": "gke", "device": "T4", "count": 4, "instance": "gcp/n1-standard-16+4xT4", "rent": {"most": 1}},
    ]
    return data


def test_kuberay_takes_it(kuberay: dict[str, Any], everything: dict[str, Any], catalog: Catalog) -> None:
    for data in (kuberay, everything):
        told = rendered(data, catalog)
        jsonschema.validate(told, RAY_CLUSTER)
        for group in (told["spec"]["headGroupSpec"], *told["spec"]["workerGroupSpecs"]):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
            assert kubernetes_validate.validate(pod, KUBERNETES, strict=True) == KUBERNETES
        options = told["spec"]["autoscalerOptions"]
        container = {"name": "autoscaler", "image": "x"} | {
            name: options[name] for name in ("env", "volumeMounts", "resources", "securityContext")
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
        assert kubernetes_validate.validate(pod, KUBERNETES, strict=True) == KUBERNETES


def test_the_check_finds_what_is_wrong(kuberay: dict[str, Any], catalog: Catalog) -> None:
    told = rendered(kuberay, catalog)
    for path, wrong in (("workerGroupSpecs", [{"groupName": "a"}]), ("suspended", True), ("rayVersion", 2)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(told | {"spec": told["spec"] | {path: wrong}}, RAY_CLUSTER)


def test_rays_autoscaler_makes_of_it_what_the_service_asks_for(everything: dict[str, Any], catalog: Catalog) -> None:
    told = rendered(everything, catalog)
    derived = _derive_autoscaling_config_from_ray_cr(copy.deepcopy(told))
    config = AutoscalingConfig(derived, skip_content_hash=True)
    assert config.provider == Provider.KUBERAY
    assert config.get_idle_timeout_s() == 1800.0
    types = config.get_node_type_configs()
    definition = ClusterDefinition.parse(everything, catalog)
    for kind in definition.kinds:
        has = types[kind.name]
        assert has.labels == rented_labels(kind)
        assert has.resources[SEAT_RESOURCE] == 1
        assert has.idle_timeout_s == 1800.0
        least, most = (kind.there, kind.there) if kind.rent is None else (kind.rent.least, kind.rent.most)
        assert (has.min_worker_nodes, has.max_worker_nodes) == (least, most)
    devices = {
        name: {k: v for k, v in each.resources.items() if k not in ("memory", SEAT_RESOURCE)}
        for name, each in types.items()
    }
    assert devices == {
        "headgroup": {"CPU": 7},
        "cpu": {"CPU": 15},
        "t4-spot": {"CPU": 3, "GPU": 1},
        "a10g": {"CPU": 3, "GPU": 1},
        "a100": {"CPU": 95, "GPU": 8},
        "fake": {"CPU": 0, "L4": 1},
        "trn-a": {"CPU": 7, "Trainium1": 1},
        "trn-b": {"CPU": 7, "Trainium1": 1},
        "fpga": {"CPU": 23, "FPGA-VU47P": 1},
        "gke": {"CPU": 15, "GPU": 4},
    }
    assert types["headgroup"].labels == definition.head_labels(catalog)
    # Less than the pod's memory: Ray keeps its objects in the rest.
    limit = groups(told)["a100"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert types["a100"].resources["memory"] == pytest.approx(int(limit.removesuffix("Mi")) * 2**20 * 0.7, rel=1e-3)


def test_pods_go_to_the_machines_that_they_are_priced_as(everything: dict[str, Any], catalog: Catalog) -> None:
    told = rendered(everything, catalog)
    specs = {name: each["template"]["spec"] for name, each in groups(told).items()}
    assert {name: spec.get("nodeSelector", {}) for name, spec in specs.items()} == {
        "cpu": {"node.kubernetes.io/instance-type": "m5.4xlarge"},
        "t4-spot": {"node.kubernetes.io/instance-type": "g4dn.xlarge", "karpenter.sh/capacity-type": "spot"},
        "a10g": {"node.kubernetes.io/instance-type": "g5.xlarge"},
        "a100": {"node.kubernetes.io/instance-type": "p4d.24xlarge"},
        "fake": {},
        "trn-a": {"node.kubernetes.io/instance-type": "trn1.2xlarge", "topology.kubernetes.io/zone": "a"},
        "trn-b": {"node.kubernetes.io/instance-type": "trn1.2xlarge", "topology.kubernetes.io/zone": "b"},
        "fpga": {"node.kubernetes.io/instance-type": "f2.6xlarge"},
        "gke": {
            "node.kubernetes.io/instance-type": "n1-standard-16",
            "cloud.google.com/gke-accelerator": "nvidia-tesla-t4",
        },
    }
    limits = {name: spec["containers"][0]["resources"]["limits"] for name, spec in specs.items()}
    assert limits["a100"]["nvidia.com/gpu"] == "8"
    assert limits["trn-a"]["aws.amazon.com/neuron"] == "1"
    assert limits["fpga"]["xilinx.com/fpga-vu47p"] == "1"
    assert limits["fake"] == {"cpu": "2", "memory": "4096Mi"}
    assert [each["key"] for each in specs["a100"]["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert "tolerations" not in specs["fake"]
    images = {name: spec["containers"][0]["image"] for name, spec in specs.items()}
    assert (images["cpu"], images["t4-spot"]) == ("raywise:0.1.0", "raywise:0.1.0-gpu")
    assert told["spec"]["headGroupSpec"]["template"]["spec"]["serviceAccountName"] == "raywise-head"


def test_token_and_password_are_secrets_and_only_the_head_may_ask_kubernetes(
    kuberay: dict[str, Any], catalog: Catalog
) -> None:
    told = changed(kuberay, catalog, token_secret="team-token")
    head, workers = told["spec"]["headGroupSpec"], told["spec"]["workerGroupSpecs"]
    for group in (head, *workers):
        (container,) = group["template"]["spec"]["containers"]
        assert {each["name"]: each["value"] for each in container["env"]} == {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": "/etc/ray-auth/token",
        }
        secrets = [each["secret"]["secretName"] for each in group["template"]["spec"]["volumes"] if "secret" in each]
        assert secrets == ["team-token"]
    assert told["spec"]["autoscalerOptions"]["env"] == head["template"]["spec"]["containers"][0]["env"]
    assert told["spec"]["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis://raywise-redis.raywise.svc:6379",
        "externalStorageNamespace": "raywise",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "raywise-redis", "key": "password"}}},
    }
    assert {group["template"]["spec"]["automountServiceAccountToken"] for group in workers} == {False}
    assert "automountServiceAccountToken" not in head["template"]["spec"]
    assert "gcsFaultToleranceOptions" not in changed(kuberay, catalog, redis=None)["spec"]


def test_all_pods_are_scraped(kuberay: dict[str, Any], catalog: Catalog) -> None:
    definition = ClusterDefinition.parse(kuberay, catalog)
    told, monitor = ray_cluster(definition, catalog), pod_monitor(definition)
    for group in (told["spec"]["headGroupSpec"], *told["spec"]["workerGroupSpecs"]):
        port = group["template"]["metadata"]["annotations"]["prometheus.io/port"]
        ports = {each["name"]: each["containerPort"] for each in group["template"]["spec"]["containers"][0]["ports"]}
        assert (str(ports["metrics"]), group["rayStartParams"]["metrics-export-port"]) == (port, port)
    head_ports = {each["name"] for each in told["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} == {
        "metrics",
        "as-metrics",
        "dash-metrics",
    }
    assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= head_ports
    assert monitor["spec"]["selector"] == {"matchLabels": {"ray.io/cluster": told["metadata"]["name"]}}
    assert (monitor["kind"], monitor["metadata"]) == ("PodMonitor", {"name": "raywise", "namespace": "raywise"})


def test_this_machine_is_no_kubernetes(definition: ClusterDefinition, catalog: Catalog) -> None:
    for render in (lambda: ray_cluster(definition, catalog), lambda: pod_monitor(definition)):
        with pytest.raises(TypeError, match="local"):
            render()
