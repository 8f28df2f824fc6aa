"""The `provider` of a cluster definition: what is wrong is said with its field and a hint, before anything is rented."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.provider_definition import LocalProvider
from cluster.types import DeviceType
from workloads.errors import SpecError

AWS = {"type": "aws", "region": "us-east-1"}
GCP = {"type": "gcp", "project": "team-1234", "zone": "us-central1-a"}
AZURE = {"type": "azure", "location": "westus2", "resource_group": "team"}
KUBERAY: dict[str, Any] = {"type": "kuberay", "image": "raywise:0.1.0"}
T4 = {"name": "t4", "device": "T4", "instance": "aws/g4dn.xlarge", "rent": {"most": 2}}
CPU = {"name": "cpu", "device": "cpu", "instance": "aws/m5.xlarge", "rent": {"most": 2}}


def parse(catalog: Catalog, provider: dict[str, Any] | None, *nodes: dict[str, Any], **more: Any) -> ClusterDefinition:
    data = {**({} if provider is None else {"provider": provider}), "nodes": list(nodes), **more}
    return ClusterDefinition.parse(copy.deepcopy(data), catalog, file="cluster.yaml")


def test_without_one_it_is_this_machine(catalog: Catalog) -> None:
    assert parse(catalog, None).provider == LocalProvider()
    assert parse(catalog, {"type": "existing", "address": "10.0.0.1:6379"}).provider.type == "existing"


def test_zones_are_kinds_of_their_own(catalog: Catalog) -> None:
    static = {"name": "a10g", "device": "A10G", "instance": "aws/g5.xlarge", "number": 2, "zones": ["us-east-1c"]}
    found = parse(catalog, AWS, T4 | {"zones": ["us-east-1a", "us-east-1b"]}, static)
    assert [kind.name for kind in found.kinds] == ["t4-us-east-1a", "t4-us-east-1b", "a10g-us-east-1c"]
    assert [kind.name for kind in found.rentable] == ["t4-us-east-1a", "t4-us-east-1b"]
    assert [node.name for node in found.nodes] == ["a10g-us-east-1c-1", "a10g-us-east-1c-2"]
    assert parse(catalog, None, T4 | {"zones": ["left", "right"]}).kinds[1].zones == ("right",)


def test_cores_are_counted_by_their_machine(catalog: Catalog) -> None:
    assert parse(catalog, AWS, CPU).kinds[0].count == 4
    assert parse(catalog, KUBERAY, CPU).kinds[0].count == 3  # one is left to Kubernetes
    assert parse(catalog, KUBERAY, CPU | {"count": 2}).kinds[0].count == 2
    pods = {"cpu": {"cpus": 7, "memory_gib": 8}}
    assert parse(catalog, KUBERAY | {"pods": pods}, CPU | {"zones": ["a"]}).kinds[0].count == 7
    assert parse(catalog, None, CPU).kinds[0].count == 1


def test_a_rented_core_has_the_price_of_its_machine(catalog: Catalog) -> None:
    snapshot = parse(catalog, AWS, CPU).snapshot(None, catalog)
    assert snapshot.node_types[0].price_usd_h == pytest.approx(0.192)


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        pytest.param({}, ["provider.type: has no known type", "local, existing, aws"], id="no type"),
        pytest.param({"type": "mars"}, ["provider.type: has no known type"], id="unknown type"),
        pytest.param({"type": "aws"}, ["provider.region: Field required"], id="no region"),
        pytest.param(AWS | {"regoin": 1}, ["provider.regoin:", "fields are name, head_instance"], id="unknown field"),
        pytest.param(AWS | {"region": "Mars"}, ["provider.region:"], id="no such region"),
        pytest.param(AWS | {"image": "ubuntu"}, ["provider.image:", "ami-"], id="no AMI"),
        pytest.param({"type": "local", "region": "x"}, ["provider.region:", "fields are type"], id="local has none"),
        pytest.param(
            AWS | {"redis": {"address": "a:1", "password": "secret"}},
            ["provider.redis.password:", "fields are address, password_file, password_secret"],
            id="a password inline",
        ),
        pytest.param(
            AWS | {"redis": {"address": "redis://:secret@a:1"}}, ["provider.redis.address:"], id="a password in it"
        ),
        pytest.param(
            AWS | {"redis": {"address": "a:1", "password_secret": "a/b"}},
            ["provider.redis.password_secret: is not for aws", "use password_file"],
            id="a Kubernetes secret on machines",
        ),
        pytest.param(
            KUBERAY | {"redis": {"address": "a:1", "password_file": "a"}},
            ["provider.redis.password_file: is not for kuberay", "use password_secret"],
            id="a file in pods",
        ),
        pytest.param(
            AWS | {"head_instance": "aws/g4nd.xlarge"},
            ["provider.head_instance: unknown instance type", "did you mean"],
            id="unknown head",
        ),
        pytest.param(
            AWS | {"head_instance": "gcp/n2-standard-4"},
            ["provider.head_instance: gcp/n2-standard-4 is not of this cloud"],
            id="a head elsewhere",
        ),
        pytest.param(
            KUBERAY | {"pods": {"t5": {}}},
            ["provider.pods.t5: there are no such nodes", "nodes are none"],
            id="no pods",
        ),
        pytest.param(
            KUBERAY | {"pods": {"t4": {"cpu": 1}}}, ["provider.pods.t4.cpu:", "fields are cpus"], id="a pod's field"
        ),
        pytest.param({"type": "existing", "address": "here"}, ["provider.address:"], id="no port"),
    ],
)
def test_bad_providers_are_refused(catalog: Catalog, provider: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse(catalog, provider)
    for part in says:
        assert part in str(caught.value)
    assert "secret" not in str(caught.value).replace("password_secret", "")


@pytest.mark.parametrize(
    ("provider", "node", "says"),
    [
        pytest.param(
            AWS,
            T4 | {"rent": {"most": 2, "least": 3}},
            ["nodes.0.rent.least: 3 are wanted at least, at most 2 may be", "lower it to 2, or raise `most`"],
            id="least above most",
        ),
        pytest.param(
            AWS, T4 | {"instance": "aws/g9.huge"}, ["nodes.0.instance: unknown instance"], id="unknown instance"
        ),
        pytest.param(AWS, T4 | {"instance": None}, ["nodes.0.instance: a node on aws needs"], id="no instance"),
        pytest.param(
            AWS,
            T4 | {"instance": "azure/Standard_NC4as_T4_v3"},
            ["nodes.0.instance: azure/Standard_NC4as_T4_v3 is not of this cloud", "take an instance of aws"],
            id="another cloud's instance",
        ),
        pytest.param(
            AWS,
            T4 | {"instance": "aws/g5.xlarge"},
            ["aws/g5.xlarge has no T4", "has A10G"],
            id="another device's instance",
        ),
        pytest.param(
            AWS,
            T4 | {"instance": "aws/g4dn.12xlarge"},
            ["nodes.0.count: aws/g4dn.12xlarge has 4 T4, not 1", "write `count: 4`"],
            id="another count",
        ),
        pytest.param(AWS, CPU | {"count": 3}, ["nodes.0.count: aws/m5.xlarge has 4 cores, not 3"], id="a few cores"),
        pytest.param(
            AWS, CPU | {"device": "Xeon-8259CL"}, ["nodes.0.device:", "write `device: cpu`"], id="a processor's name"
        ),
        pytest.param(AWS, CPU | {"instance": "aws/g4dn.xlarge"}, ["has no cpu"], id="cores of a machine with GPUs"),
        pytest.param(AWS, T4 | {"price_usd_h": 0}, ["nodes.0.price_usd_h:", "a price of 0"], id="for nothing"),
        pytest.param(AWS, T4 | {"emulated_speed": 0.5}, ["nodes.0.emulated_speed:"], id="emulated on a cloud"),
        pytest.param(AWS, T4 | {"number": 1}, ["nodes.0.number:", "least: 1"], id="rented and there"),
        pytest.param(AWS, T4 | {"zones": ["eu-west-1a"]}, ["nodes.0.zones: eu-west-1a is not in"], id="another region"),
        pytest.param(
            AWS,
            T4 | {"zones": ["us-east-1a", "us-east-1a"]},
            ["nodes.0.zones: us-east-1a is there twice"],
            id="zone twice",
        ),
        pytest.param(
            AWS | {"zones": ["us-east-1b"]},
            T4 | {"zones": ["us-east-1a"]},
            ["nodes.0.zones: us-east-1a is none of the provider's", "which are us-east-1b"],
            id="a zone of its own",
        ),
        pytest.param(
            AWS | {"subnet_ids": {"us-east-1b": "subnet-1"}},
            T4 | {"zones": ["us-east-1a"]},
            ["nodes.0.zones: there is no subnet in us-east-1a"],
            id="no subnet",
        ),
        pytest.param(
            GCP,
            T4 | {"instance": "gcp/n1-standard-4+1xT4", "zones": ["us-central1-b"]},
            ["nodes.0.zones: us-central1-b is not the provider's zone", "all nodes of a cluster on gcp in one zone"],
            id="zones on gcp",
        ),
        pytest.param(
            GCP,
            {"name": "tpu", "device": "TPU-v4", "count": 4, "instance": "gcp/tpu-v4-8", "rent": {"most": 1}},
            ["nodes.0.device: TPU-v4: TPUs are not launched yet"],
            id="TPUs",
        ),
        pytest.param(
            AZURE,
            T4 | {"instance": "azure/Standard_NC4as_T4_v3", "zones": ["a"]},
            ["nodes.0.zones: a is no zone of azure", "1, 2, 3"],
            id="zones on azure",
        ),
        pytest.param(
            KUBERAY, T4 | {"market": "spot"}, ["provider.pods.t4.node_selector: nothing sends"], id="spot pods anywhere"
        ),
        pytest.param(
            KUBERAY,
            {"name": "t4", "device": "T4", "rent": {"most": 1}},
            ["provider.pods.t4: how large its pods are is not known", "nodes.0.instance"],
            id="pods without a size",
        ),
        pytest.param(
            KUBERAY, T4 | {"count": 2}, ["nodes.0.count: aws/g4dn.xlarge has 1 T4, not 2"], id="more than are there"
        ),
        pytest.param(KUBERAY, CPU | {"count": 4}, ["nodes.0.count: its pods have 3 cores, not 4"], id="more cores"),
        pytest.param(
            KUBERAY,
            {"name": "f", "device": "FPGA-VU47P", "instance": "aws/f2.6xlarge", "rent": {"most": 1}},
            ["provider.pods.f.resource: what Kubernetes calls FPGA-VU47P is not known"],
            id="no device plugin",
        ),
        pytest.param(
            KUBERAY,
            {"name": "headgroup", "device": "cpu", "instance": "aws/m5.xlarge"},
            ["nodes.0.name: the name 'headgroup' is used twice"],
            id="Ray's own name",
        ),
    ],
)
def test_nodes_that_the_provider_cannot_rent_are_refused(
    catalog: Catalog, provider: dict[str, Any], node: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        parse(catalog, provider, node)
    for part in says:
        assert part in str(caught.value)


def test_names_and_heads_must_fit(catalog: Catalog) -> None:
    twice = [{"name": "t4", "device": "T4", "instance": "aws/g4dn.xlarge", "number": n} for n in (2, 3)]
    with pytest.raises(SpecError, match="used twice"):
        parse(catalog, AWS, *twice)
    with pytest.raises(SpecError, match=r"head\.cpus: 16 cores are more than there are"):
        parse(catalog, AWS, head={"cpus": 16})


def test_all_problems_are_told_at_once(catalog: Catalog) -> None:
    with pytest.raises(SpecError) as caught:
        parse(catalog, AWS, T4 | {"count": 2, "zones": ["eu-west-1a"]}, CPU | {"instance": "gcp/n2-standard-4"})
    assert [each.field for each in caught.value.problems] == ["nodes.0.zones", "nodes.0.count", "nodes.1.instance"]


def test_a_device_of_ones_own_needs_kubernetes_name_of_it(catalog: Catalog) -> None:
    own = Catalog({**catalog.device_types, "Z9": DeviceType("Z9", "asic", "Zed")}, catalog.instances)
    node = {"name": "z", "device": "Z9", "price_usd_h": 1, "rent": {"most": 1}}
    pods = {"z": {"cpus": 2, "memory_gib": 8, "resource": "zed.com/z9"}}
    assert parse(own, KUBERAY | {"pods": pods}, node).rentable[0].device == "Z9"
