"""What Ray's own AWS code makes of the file: on a simulated EC2 (moto), with nothing of it real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import (
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_USER_NODE_TYPE,
)

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.render import ray_launcher


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A simulated account, and a home folder for the key that Ray makes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield


# moto and botocore warn of their own affairs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_finds_network_and_keys_and_launches_spot_machines(
    ec2: None, written: dict[str, Any], catalog: Catalog, tmp_path: Path
) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    profile = "arn:aws:iam::123456789012:instance-profile/head"
    data = written["aws"] | {"provider": written["aws"]["provider"] | {"instance_profile": profile}}
    config = prepare_config(ray_launcher(ClusterDefinition.parse(data, catalog), catalog))
    validate_config(config)
    made = AWSNodeProvider.bootstrap_config(config)
    assert (tmp_path / ".ssh" / "ray-autoscaler_us-east-1.pem").stat().st_mode & 0o777 == 0o600
    types = made["available_node_types"]
    assert all(each["node_config"]["SubnetIds"] and each["node_config"]["SecurityGroupIds"] for each in types.values())
    provider = AWSNodeProvider(made["provider"], made["cluster_name"])
    for name, market in (("t4-spot-us-east-1a", "spot"), ("cpu", None)):
        tags = {TAG_RAY_NODE_NAME: "ray-worker", TAG_RAY_NODE_KIND: "worker"}
        tags |= {TAG_RAY_USER_NODE_TYPE: name, TAG_RAY_LAUNCH_CONFIG: "x"}
        (machine,) = provider.create_node(types[name]["node_config"], tags, 1).values()
        assert machine.instance_type == types[name]["node_config"]["InstanceType"]
        assert machine.instance_lifecycle == market
    there = provider.non_terminated_nodes({})
    assert sorted(provider.node_tags(each)[TAG_RAY_USER_NODE_TYPE] for each in there) == ["cpu", "t4-spot-us-east-1a"]
    provider.terminate_nodes(there)
    assert provider.non_terminated_nodes({}) == []
