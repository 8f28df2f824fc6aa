"""The fake cluster: its clock, its scripts, and what it refuses."""

from __future__ import annotations

import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.fake import FakeCluster, Script
from cluster.host import HostRates
from cluster.protocols import ClusterUnreachable
from cluster.types import RunRequest
from workloads.job import Job, Shard


class World:
    """A fake cluster with a clock that a test moves."""

    def __init__(self, definition: ClusterDefinition, catalog: Catalog, host_rates: HostRates) -> None:
        self.now_s = 100.0
        self.scripts: dict[str, Script] = {}
        snapshot = definition.snapshot(host_rates, catalog)
        self.cluster = FakeCluster(snapshot, lambda: self.now_s, self._script_of)

    def _script_of(self, request: RunRequest) -> Script:
        return self.scripts.get(request.job.run_id, Script())

    def start(self, run_id: str, *shards: tuple[str, str], script: Script | None = None) -> None:
        if script is not None:
            self.scripts[run_id] = script
        members = tuple(Shard(device, f"planned-{node}", {device: 1.0}) for node, device in shards)
        job = Job(run_id, run_id, 1, {}, members, "/run", "/out", "/progress")
        self.cluster.start(RunRequest(job, run_id))

    def state(self, run_id: str) -> str:
        return self.cluster.observe([run_id])[run_id].state


@pytest.fixture
def world(definition: ClusterDefinition, catalog: Catalog, host_rates: HostRates) -> World:
    return World(definition, catalog, host_rates)


T4 = ("t4", "T4")
A100 = ("a100", "A100-SXM4-40GB")


def test_a_run_holds_its_devices_until_it_ends(world: World) -> None:
    world.start("a", T4, T4, script=Script(startup_s=2, run_s=8))
    assert world.cluster.snapshot().free("T4") == 0
    assert world.state("a") == "starting"
    world.now_s += 2
    assert world.state("a") == "running"
    world.now_s += 8
    assert world.state("a") == "succeeded"
    assert world.cluster.snapshot().free("T4") == 2
    assert world.cluster.observe(["a"])["a"].ended_s == 110.0


def test_a_device_held_twice_is_an_assertion_error(world: World) -> None:
    world.start("a", T4, T4)
    with pytest.raises(AssertionError, match=r"held twice: 3 of 2 by \['a', 'b'\]"):
        world.start("b", T4)
    assert world.state("b") == "lost"
    world.cluster.check()


def test_a_device_may_be_held_again_after_its_run_ended(world: World) -> None:
    world.start("a", A100)
    world.now_s += 10
    world.start("b", A100)
    world.cluster.check()


def test_a_shard_on_a_node_without_its_device_is_an_assertion_error(world: World) -> None:
    with pytest.raises(AssertionError, match="has no A100"):
        world.start("a", ("t4", "A100-SXM4-40GB"))


def test_a_lost_node_ends_the_whole_gang(world: World) -> None:
    world.start("a", T4, A100, script=Script(run_s=100))
    world.start("b", T4, script=Script(run_s=100))
    world.now_s += 5
    world.cluster.lose_node("planned-a100")
    run = world.cluster.observe(["a"])["a"]
    assert (run.state, run.message, run.ended_s) == ("failed", "Ray: node planned-a100 died", 105.0)
    assert world.state("b") == "running"
    snapshot = world.cluster.snapshot()
    assert (snapshot.free("T4"), snapshot.total("A100-SXM4-40GB")) == (1, 0)
    world.cluster.check()


def test_a_lost_node_can_come_back(world: World) -> None:
    node = world.cluster.snapshot().nodes[1]
    world.cluster.lose_node(node.node_id)
    world.start("late", A100)
    assert world.state("late") == "failed"
    world.cluster.add_node(node)
    world.start("again", A100)
    assert world.cluster.snapshot().free("A100-SXM4-40GB") == 0


def test_a_run_fails_when_its_script_says_so(world: World) -> None:
    world.start("a", T4, script=Script(run_s=10, fail_at_s=4, message="out of rows"))
    world.now_s += 3.9
    assert world.state("a") == "running"
    world.now_s += 0.2
    assert world.cluster.observe(["a"])["a"].message == "out of rows"
    assert [record["kind"] for record in world.cluster.progress("a")] == ["phase", "failed"]


def test_records_come_when_they_are_due(world: World) -> None:
    world.start(
        "a", T4, script=Script(run_s=10, records=[(3, {"kind": "step", "step": 1}), (6, {"kind": "step", "step": 2})])
    )
    world.now_s += 4
    assert [record["kind"] for record in world.cluster.progress("a")] == ["phase", "step"]
    assert list(world.cluster.progress("a")) == []
    world.now_s += 6
    assert [record["kind"] for record in world.cluster.progress("a")] == ["step", "done"]
    assert [record["t"] for record in world.cluster.reopened().progress("a")] == [100.0, 103.0, 106.0, 110.0]


def test_a_stopped_run_writes_no_more(world: World) -> None:
    world.start("a", T4, script=Script(run_s=10, records=[(6, {"kind": "step", "step": 2})]))
    world.now_s += 5
    world.cluster.stop("a")
    world.now_s += 50
    assert world.state("a") == "stopped"
    assert [record["kind"] for record in world.cluster.progress("a")] == ["phase"]
    assert world.cluster.active_runs() == []


SAVES = [{"kind": "checkpoint", "step": 5}]
STOPS = [
    ("it saves and ends by itself", Script(run_s=99, stop_s=4, saves=SAVES), 10.0, 4.0, ["phase", "checkpoint"]),
    ("what takes too long is ended", Script(run_s=99, stop_s=20, saves=SAVES), 10.0, 10.0, ["phase"]),
    ("what has not begun ends at once", Script(startup_s=50, run_s=9, stop_s=4, saves=SAVES), 10.0, 0.0, []),
    ("without grace nothing is saved", Script(run_s=99, stop_s=4, saves=SAVES), 0.0, 0.0, ["phase"]),
]


@pytest.mark.parametrize(
    ("script", "grace_s", "after_s", "kinds"), [row[1:] for row in STOPS], ids=[row[0] for row in STOPS]
)
def test_a_run_that_is_asked_to_end(
    world: World, script: Script, grace_s: float, after_s: float, kinds: list[str]
) -> None:
    world.start("a", T4, script=script)
    world.now_s += 5
    world.cluster.stop("a", grace_s)
    for _ in range(int(after_s)):
        assert world.state("a") == "running"
        assert world.cluster.snapshot().free("T4") == 1
        world.cluster.stop("a", 1000.0)
        world.now_s += 1
    assert world.cluster.observe(["a"])["a"].ended_s == 105.0 + after_s
    assert world.state("a") == "stopped"
    assert [record["kind"] for record in world.cluster.progress("a")] == kinds


def test_one_that_ends_well_while_it_is_asked_to_stop_has_succeeded(world: World) -> None:
    world.start("a", T4, script=Script(run_s=8, stop_s=20))
    world.now_s += 5
    world.cluster.stop("a", 10.0)
    world.now_s += 3
    assert world.state("a") == "succeeded"


def test_a_call_without_grace_ends_what_was_given_some(world: World) -> None:
    world.start("a", T4, script=Script(run_s=99, stop_s=20, saves=SAVES))
    world.now_s += 5
    world.cluster.stop("a", 30.0)
    world.now_s += 1
    world.cluster.stop("a")
    assert world.state("a") == "stopped"
    assert [record["kind"] for record in world.cluster.progress("a")] == ["phase"]


def test_an_unreachable_cluster_says_so_and_its_runs_go_on(world: World) -> None:
    world.start("a", T4)
    world.cluster.set_reachable(False)
    for call in (world.cluster.snapshot, lambda: world.cluster.observe(["a"]), lambda: world.cluster.stop("a")):
        with pytest.raises(ClusterUnreachable):
            call()
    world.now_s += 20
    world.cluster.set_reachable(True)
    assert world.state("a") == "succeeded"


def test_a_restarted_cluster_has_forgotten_its_runs(world: World) -> None:
    world.start("a", T4)
    world.cluster.forget("a")
    assert world.state("a") == "lost"


def test_the_next_end_moves_a_simulators_clock(world: World) -> None:
    assert world.cluster.next_end_s() is None
    world.start("a", T4, script=Script(run_s=30))
    world.start("b", T4, script=Script(run_s=20))
    assert world.cluster.next_end_s() == 120.0
