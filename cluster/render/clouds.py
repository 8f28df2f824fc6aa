"""One machine in the words of its cloud: the `node_config` of Ray's cluster launcher."""

from __future__ import annotations

from typing import Any

from ..provider_definition import AwsProvider, AzureProvider, GcpProvider

GCP_DEFAULT_IMAGE = "projects/deeplearning-platform-release/global/images/family/common-cpu"
AZURE_DEFAULT_IMAGE = "microsoft-dsvm:ubuntu-2204:2204-gen2:latest"
"""Where none is given: what Ray's own defaults have. Of AWS Ray has one for each region, and fills it in."""
GCP_ACCELERATORS = {"T4": "nvidia-tesla-t4", "P100": "nvidia-tesla-p100", "V100": "nvidia-tesla-v100"}
"""Google's names of what the catalog calls `1xT4` in `n1-standard-4+1xT4`; newer ones are named like `nvidia-l4`."""


def aws_node(provider: AwsProvider, machine: str, spot: bool, zone: str | None, is_head: bool) -> dict[str, Any]:
    """Arguments of EC2's `RunInstances`; Ray adds key, subnet, security group and image where they are not here."""
    config: dict[str, Any] = {
        "InstanceType": machine,
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": provider.disk_gb, "VolumeType": "gp3"}}
        ],
        "MetadataOptions": {"HttpTokens": "required"},
    }
    profile = provider.instance_profile if is_head else provider.worker_instance_profile
    optional = {
        "ImageId": provider.image,
        "IamInstanceProfile": {"Arn": profile} if profile else None,
        "SubnetIds": _subnets(provider, zone) or None,
        "SecurityGroupIds": list(provider.security_group_ids) or None,
        # Where subnets have no zones, Ray tries one after the other, and EC2 refuses those of another zone.
        "Placement": {"AvailabilityZone": zone} if zone else None,
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
        if spot
        else None,
    }
    return config | {name: value for name, value in optional.items() if value is not None}


def _subnets(provider: AwsProvider, zone: str | None) -> list[str]:
    if not isinstance(provider.subnet_ids, dict):
        return list(provider.subnet_ids)
    return [subnet for place, subnet in provider.subnet_ids.items() if zone in (None, place)]


def gcp_node(provider: GcpProvider, machine: str, spot: bool, has_devices: bool) -> dict[str, Any]:
    """A body of Compute Engine's `instances.insert`; Ray adds network and names."""
    machine_type, _, attached = machine.partition("+")
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {
            "diskSizeGb": provider.disk_gb,
            "sourceImage": provider.image or GCP_DEFAULT_IMAGE,
        },
    }
    config: dict[str, Any] = {"machineType": machine_type, "disks": [disk]}
    if attached:
        config["guestAccelerators"] = [gcp_accelerator(attached)]
    if provider.service_account is not None:
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        config["serviceAccounts"] = [{"email": provider.service_account, "scopes": scopes}]
    scheduling: dict[str, Any] = {}
    if has_devices or spot:
        # They cannot be moved while they run.
        scheduling |= {"onHostMaintenance": "TERMINATE", "automaticRestart": False}
    if spot:
        scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    if has_devices:
        # Google's deep-learning images then install NVIDIA's driver at the first start.
        config["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
    return config | ({"scheduling": scheduling} if scheduling else {})


def gcp_accelerator(attached: str) -> dict[str, Any]:
    """`1xT4` in Google's words."""
    count, _, name = attached.partition("x")
    return {"acceleratorType": GCP_ACCELERATORS.get(name, f"nvidia-{name.lower()}"), "acceleratorCount": int(count)}


def azure_node(provider: AzureProvider, machine: str, spot: bool, zone: str | None) -> dict[str, Any]:
    """Parameters of Ray's template of a virtual machine."""
    image = provider.image or AZURE_DEFAULT_IMAGE
    parameters: dict[str, Any] = {"vmSize": machine, "osDiskSize": provider.disk_gb}
    if image.startswith("/"):
        parameters["imageId"] = image
    else:
        names = ("imagePublisher", "imageOffer", "imageSku", "imageVersion")
        parameters |= dict(zip(names, image.split(":"), strict=True))
    if zone is not None:
        parameters["availability_zone"] = zone
    if spot:
        # -1: up to the price on demand.
        parameters |= {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}
    return {"azure_arm_parameters": parameters}
