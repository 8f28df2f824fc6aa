"""The rules of queues, from a cluster definition. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.definition import ClusterDefinition

from .types import QueueRules


def rules_of(definition: ClusterDefinition) -> Mapping[str, QueueRules]:
    """By name of the queue."""
    return {
        each.name: QueueRules(each.weight, dict(each.quota), each.limit_usd_h, each.limit_usd_month)
        for each in definition.queues
    }
