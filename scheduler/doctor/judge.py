"""All judgements, in the order in which one would look: the machine, the home, the service, the cluster."""

from __future__ import annotations

from .facts import Facts
from .findings import Finding, warn
from .home import judge_home, judge_service, judge_store
from .machine import judge_machine
from .ray_cluster import judge_cluster, judge_prices


def judge(facts: Facts) -> list[Finding]:
    """Every finding. Pure."""
    found = judge_machine(facts.machine, runs_ray=facts.cluster is None or facts.cluster_is_local)
    found += [*judge_home(facts.home), *judge_store(facts.store), *judge_service(facts.service)]
    if facts.cluster is None:
        return [*found, warn("cluster", "none is known", "start the service, or name one in its configuration")]
    installed = facts.machine.packages.get("ray")
    return [*found, *judge_cluster(facts.cluster, installed, local=facts.cluster_is_local), *judge_prices(facts.prices)]
