"""What Ray's cluster launcher is told: taken by Ray's own schema and loader, with what the service asks nodes by."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from ray._private.label_utils import validate_node_label_syntax
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from cluster.catalog import Catalog
from cluster.definition import HEAD, ClusterDefinition
from cluster.offers import rented_labels
from cluster.render import RAY_VERSION, ray_launcher
from cluster.render.launcher import NODE_REQUIREMENTS
from cluster.render.offers import cloud_offers
from cluster.types import NODE_TYPE_LABEL, SEAT_RESOURCE

ROOT = Path(__file__).resolve().parents[4]
LAUNCHED = ("aws", "gcp", "azure")
INSTANCE_KEYS = {"aws": "g4dn.xlarge", "gcp": "n1-standard-4", "azure": "Standard_NC4as_T4_v3"}
T4_TYPES = {"aws": "t4-spot-us-east-1b", "gcp": "t4-spot-us-central1-a", "azure": "t4-spot-2"}


@pytest.fixture(params=LAUNCHED)
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rendered(definition: ClusterDefinition, catalog: Catalog) -> dict[str, Any]:
    """As it is read back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(ray_launcher(definition, catalog)))
    return found


def changed(written: dict[str, Any], catalog: Catalog, **provider: Any) -> dict[str, Any]:
    data = copy.deepcopy(written)
    data["provider"] |= provider
    return rendered(ClusterDefinition.parse(data, catalog), catalog)


def test_rays_own_schema_and_loader_take_it(clouds: dict[str, ClusterDefinition], cloud: str, catalog: Catalog) -> None:
    told = rendered(clouds[cloud], catalog)
    prepared = prepare_config(copy.deepcopy(told))
    validate_config(prepared)
    assert prepared["available_node_types"] == told["available_node_types"]
    assert prepared["worker_setup_commands"] == told["setup_commands"]
    config = AutoscalingConfig(copy.deepcopy(told), skip_content_hash=True)
    types = config.get_node_type_configs()
    definition = clouds[cloud]
    assert {name: (each.min_worker_nodes, each.max_worker_nodes) for name, each in types.items()} == {
        HEAD: (0, 1),
        **{
            kind.name: (kind.there, kind.there) if kind.rent is None else (kind.rent.least, kind.rent.most)
            for kind in definition.kinds
        },
    }
    assert {each.idle_timeout_s for name, each in types.items() if name != HEAD} == {1800.0}
    assert config.get_idle_timeout_s() == 1800.0
    assert config.provider.name.lower() == cloud
    assert config.get_provider_instance_type(T4_TYPES[cloud]) == INSTANCE_KEYS[cloud]
    assert config.get_max_num_worker_nodes() == sum(each.max_worker_nodes for each in types.values()) - 1


def test_rays_schema_finds_what_is_wrong(clouds: dict[str, ClusterDefinition], catalog: Catalog) -> None:
    told = rendered(clouds["aws"], catalog)
    told["available_node_types"]["cpu"]["idle_timeout"] = 3
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(told))


def test_each_type_has_the_labels_and_resources_that_it_is_asked_for_by(
    clouds: dict[str, ClusterDefinition], cloud: str, catalog: Catalog
) -> None:
    types = rendered(clouds[cloud], catalog)["available_node_types"]
    for kind in clouds[cloud].kinds:
        assert types[kind.name]["labels"] == rented_labels(kind)
        assert types[kind.name]["labels"][NODE_TYPE_LABEL] == kind.name
        assert types[kind.name]["resources"][SEAT_RESOURCE] == 1
        validate_node_label_syntax(types[kind.name]["labels"])
    for offer in cloud_offers(clouds[cloud], catalog):
        has = types[offer.node_type]["resources"]
        assert {name: has[name] for name in offer.devices} == offer.devices
        assert has["memory"] == pytest.approx(offer.facts.total["memory"], abs=1)
    assert types[T4_TYPES[cloud]]["resources"] | {"memory": 0} == {"CPU": 4, "GPU": 1, "memory": 0, SEAT_RESOURCE: 1}
    assert types[HEAD]["labels"] == clouds[cloud].head_labels(catalog)
    assert set(types[HEAD]["resources"]) == {"CPU"}


def test_other_accelerators_are_custom_resources(catalog: Catalog) -> None:
    nodes = [
        {"name": "trn", "device": "Trainium1", "instance": "aws/trn1.2xlarge", "rent": {"most": 2}},
        {"name": "fpga", "device": "FPGA-VU47P", "instance": "aws/f2.6xlarge", "number": 1},
    ]
    data = {"provider": {"type": "aws", "region": "us-east-1"}, "nodes": nodes}
    types = rendered(ClusterDefinition.parse(data, catalog), catalog)["available_node_types"]
    assert types["trn"]["resources"] | {"memory": 0} == {"CPU": 8, "Trainium1": 1, "memory": 0, SEAT_RESOURCE: 1}
    assert types["fpga"]["resources"]["FPGA-VU47P"] == 1


def test_a_head_with_gpus_does_not_offer_them(written: dict[str, Any], catalog: Catalog) -> None:
    told = changed(written["aws"], catalog, head_instance="aws/g4dn.xlarge")
    assert told["available_node_types"][HEAD]["resources"] == {"CPU": 4, "GPU": 0}


def test_spot_machines_and_zones_are_in_the_words_of_the_cloud(
    clouds: dict[str, ClusterDefinition], catalog: Catalog
) -> None:
    configs = {
        cloud: rendered(clouds[cloud], catalog)["available_node_types"][name]["node_config"]
        for cloud, name in T4_TYPES.items()
    }
    assert configs["aws"]["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time"},
    }
    assert configs["aws"]["Placement"] == {"AvailabilityZone": "us-east-1b"}
    assert configs["gcp"]["scheduling"] == {
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
    }
    assert configs["gcp"]["guestAccelerators"] == [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}]
    azure = configs["azure"]["azure_arm_parameters"]
    assert (azure["priority"], azure["evictionPolicy"], azure["availability_zone"]) == ("Spot", "Delete", "2")
    for cloud in LAUNCHED:
        text = json.dumps(rendered(clouds[cloud], catalog)["available_node_types"]["cpu"]["node_config"])
        assert not re.search(r"spot|TERMINATE|zone", text, re.IGNORECASE)


def test_what_is_given_for_aws_reaches_its_machines(written: dict[str, Any], catalog: Catalog) -> None:
    arn = "arn:aws:iam::123456789012:instance-profile/"
    told = changed(
        written["aws"],
        catalog,
        zones=["us-east-1a", "us-east-1b"],
        instance_profile=arn + "head",
        worker_instance_profile=arn + "worker",
        subnet_ids={"us-east-1a": "subnet-a1", "us-east-1b": "subnet-b2"},
        security_group_ids=["sg-1"],
        disk_gb=500,
    )
    types = {name: each["node_config"] for name, each in told["available_node_types"].items()}
    assert told["provider"]["availability_zone"] == "us-east-1a,us-east-1b"
    assert types[HEAD]["IamInstanceProfile"] == {"Arn": arn + "head"}
    assert types["a100"]["IamInstanceProfile"] == {"Arn": arn + "worker"}
    assert types["a100"]["SubnetIds"] == ["subnet-a1", "subnet-b2"]
    assert types["t4-spot-us-east-1b"]["SubnetIds"] == ["subnet-b2"]
    assert types["a100"]["SecurityGroupIds"] == ["sg-1"]
    assert types["a100"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 500
    assert {each["MetadataOptions"]["HttpTokens"] for each in types.values()} == {"required"}
    assert {each["ImageId"] for each in types.values()} == {"ami-0123456789abcdef0"}


def test_images_and_accounts_of_the_other_clouds(written: dict[str, Any], catalog: Catalog) -> None:
    gcp = changed(
        written["gcp"],
        catalog,
        image="projects/p/global/images/family/f",
        service_account="s@p.iam.gserviceaccount.com",
    )
    config = gcp["available_node_types"]["cpu"]["node_config"]
    assert config["disks"][0]["initializeParams"]["sourceImage"] == "projects/p/global/images/family/f"
    assert config["serviceAccounts"][0]["email"] == "s@p.iam.gserviceaccount.com"
    assert gcp["provider"]["region"] == "us-central1"
    subscription = "12345678-1234-1234-1234-123456789abc"
    azure = changed(written["azure"], catalog, subscription=subscription, image="a:b:c:d")
    parameters = azure["available_node_types"]["cpu"]["node_config"]["azure_arm_parameters"]
    assert (parameters["imagePublisher"], parameters["imageVersion"]) == ("a", "d")
    assert azure["provider"]["subscription_id"] == subscription
    own = changed(written["azure"], catalog, image="/subscriptions/1/images/x")
    parameters = own["available_node_types"]["cpu"]["node_config"]["azure_arm_parameters"]
    assert parameters["imageId"] == "/subscriptions/1/images/x"
    assert "imagePublisher" not in parameters


def test_nodes_are_started_with_the_autoscaler_a_token_and_metrics(
    clouds: dict[str, ClusterDefinition], cloud: str, catalog: Catalog
) -> None:
    told = rendered(clouds[cloud], catalog)
    (head,), (worker,) = told["head_start_ray_commands"][1:], told["worker_start_ray_commands"][1:]
    assert "export RAY_AUTH_MODE=token RAY_enable_autoscaler_v2=1;" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "ulimit -n 65536" in head
    assert "export RAY_AUTH_MODE=token;" in worker
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert "--metrics-export-port=8090" in head
    assert "--metrics-export-port=8090" in worker
    assert told["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert told["provider"]["cache_stopped_nodes"] is False
    assert "prom_metrics_service_discovery.json" in json.dumps(told["metadata"])


def test_redis_and_its_password_are_named_and_the_password_is_in_no_command(
    written: dict[str, Any], catalog: Catalog
) -> None:
    redis = {"address": "redis.internal:6379", "password_file": "~/.raywise/redis"}
    told = changed(written["aws"], catalog, redis=redis)
    head = told["head_start_ray_commands"][1]
    assert "RAY_REDIS_ADDRESS=redis.internal:6379 RAY_external_storage_namespace=team;" in head
    assert '--redis-password="$(cat ~/.ray/redis_password)"' in head
    assert told["file_mounts"]["~/.ray/redis_password"] == "~/.raywise/redis"
    assert "redis" not in told["worker_start_ray_commands"][1]


def test_nodes_have_the_services_ray_and_what_workloads_need(
    clouds: dict[str, ClusterDefinition], written: dict[str, Any], catalog: Catalog
) -> None:
    assert version("ray") == RAY_VERSION
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(NODE_REQUIREMENTS) <= set(project["dependencies"])
    commands = rendered(clouds["aws"], catalog)["setup_commands"]
    assert f"'ray[default,data,train,serve]=={RAY_VERSION}'" in commands[-1]
    assert changed(written["aws"], catalog, setup_commands=["./mine.sh"])["setup_commands"] == ["./mine.sh"]


def test_this_machine_is_no_cloud(definition: ClusterDefinition, catalog: Catalog) -> None:
    with pytest.raises(TypeError, match="local"):
        ray_launcher(definition, catalog)
