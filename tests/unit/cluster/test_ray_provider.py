"""Renting through Ray's autoscaler: seats are asked for, given up when nodes have joined, and when launches fail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cluster.gcs import FailedLaunch, Launches, NamedThing
from cluster.inventory import NodeFacts, Offer
from cluster.ray_provider import FORCE_S, LATE_FACTOR, LATE_S, SEAT_NAME, STALE_S, RayProvider
from cluster.types import NODE_TYPE_LABEL, Launching

LAUNCH_S = 100.0


@dataclass
class Control:
    """Ray's control service, as far as a provider asks it."""

    groups: list[NamedThing] = field(default_factory=list)
    drained: list[tuple[str, float | None]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def placement_groups(self) -> list[NamedThing]:
        return list(self.groups)

    def ask_for_seat(self, name: str, node_type: str) -> NamedThing:
        assert name.split(":")[1] == node_type
        self.groups.append(NamedThing(name.encode(), name))
        return self.groups[-1]

    def remove_placement_group(self, group: NamedThing) -> None:
        self.groups.remove(group)

    def end_node(self, node_id: str) -> None:
        self.ended.append(node_id)

    def drain(self, node_id: str, cause: str, leaves_s: float | None = None) -> bool:
        assert cause
        self.drained.append((node_id, leaves_s))
        return True


def facts(node_id: str, kind: str = "t4", **total: float) -> NodeFacts:
    return NodeFacts(node_id, node_id, {NODE_TYPE_LABEL: kind}, total or {"T4": 2.0, "raywise_seat": 1.0})


class Cloud:
    """A provider with a clock, and what Ray says."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.control = Control()
        self.nodes: list[NodeFacts] = []
        self.pending: dict[str, int] = {}
        self.failed: list[FailedLaunch] = []
        self.provider = self.started()

    def started(self) -> RayProvider:
        """The provider of a service that has just been started."""
        kinds = [Offer(facts("offer", name, T4=2.0), 4, LAUNCH_S) for name in ("t4", "spot")]
        return RayProvider(self.control, kinds, lambda: self.now_s, 60.0)  # type: ignore[arg-type]

    def look(self, seconds: float = 1.0, kind: str = "t4") -> Launching:
        self.now_s += seconds
        return self.provider.observed(self.nodes, Launches(self.pending, tuple(self.failed)))[kind]

    @property
    def seats(self) -> int:
        return sum(each.name.startswith(SEAT_NAME) for each in self.control.groups)


def test_nodes_are_on_their_way_until_they_have_joined() -> None:
    cloud = Cloud()
    assert cloud.look() == Launching()
    cloud.provider.request("t4", 2)
    cloud.provider.request("t4", 2)
    asked_s = cloud.now_s
    assert cloud.seats == 2
    assert cloud.look().joins_s == (asked_s + LAUNCH_S,) * 2
    cloud.nodes.append(facts("a"))
    assert cloud.look(9.0).joins_s == (asked_s + 10.0,), "the first took 10 s"
    cloud.nodes.append(facts("b"))
    assert cloud.look() == Launching(launch_s=10.5)
    assert cloud.seats == 0


def test_more_nodes_are_asked_for_beside_those_that_are_there() -> None:
    cloud = Cloud()
    cloud.nodes = [facts("a"), facts("b")]
    cloud.look()
    cloud.provider.request("t4", 3)
    assert cloud.seats == 3, "each that is there takes one"
    assert len(cloud.look().joins_s) == 1
    cloud.provider.request("t4", 99)
    assert cloud.seats == 4, "no more than may be"


def test_another_service_finds_what_is_on_its_way() -> None:
    cloud = Cloud()
    cloud.provider.request("t4", 1)
    asked_s = cloud.now_s
    cloud.provider = cloud.started()
    assert cloud.look(50.0).joins_s == (asked_s + LAUNCH_S,)
    cloud.provider.request("t4", 1)
    assert cloud.seats == 1


def test_a_launch_that_fails_is_given_up_and_tried_again_later_and_later() -> None:
    cloud = Cloud()
    pauses_s = []
    for _ in range(3):
        cloud.provider.request("t4", 1)
        cloud.look()
        cloud.failed.append(FailedLaunch("t4", 1, cloud.now_s, "no capacity"))
        found = cloud.look()
        assert (found.joins_s, found.why, cloud.seats) == ((), "no capacity", 0)
        assert found.unavailable_until_s is not None
        pauses_s.append(found.unavailable_until_s - cloud.now_s)
        cloud.provider.request("t4", 1)
        assert cloud.seats == 0, "not before that"
        assert cloud.look(pauses_s[-1]) == Launching()
    assert pauses_s == [60.0, 120.0, 240.0]
    assert cloud.provider.failures["t4"] == 3
    cloud.provider.request("t4", 1)
    cloud.nodes.append(facts("a"))
    cloud.look()
    cloud.provider.request("t4", 2)
    cloud.look()
    cloud.failed.append(FailedLaunch("t4", 1, cloud.now_s, "no capacity"))
    found = cloud.look()
    assert found.unavailable_until_s == cloud.now_s + 60.0, "one that joined forgives the others"


def test_of_several_launches_the_others_go_on() -> None:
    cloud = Cloud()
    cloud.provider.request("t4", 3)
    cloud.look()
    cloud.failed.append(FailedLaunch("t4", 1, cloud.now_s, "no capacity"))
    assert len(cloud.look().joins_s) == 2
    assert len(cloud.look().joins_s) == 2, "a failure counts once"


def test_what_ray_launches_counts_whether_it_is_asked_for_or_not() -> None:
    cloud = Cloud()
    cloud.pending = {"t4": 2}
    assert len(cloud.look().joins_s) == 2
    cloud.nodes = [facts("a"), facts("b")]
    assert cloud.look().joins_s == (), "Ray says so for a while of what has joined"
    assert len(cloud.look(STALE_S).joins_s) == 2


def test_a_node_that_never_joins_is_given_up() -> None:
    cloud = Cloud()
    cloud.provider.request("t4", 1)
    late_s = LAUNCH_S * LATE_FACTOR + LATE_S
    assert cloud.look(late_s - 1.0).unavailable_until_s is None
    found = cloud.look(2.0)
    assert (cloud.seats, found.joins_s) == (0, ())
    assert found.why == f"it was asked for and had not joined after {late_s:.0f} s"


def test_a_node_with_other_devices_than_promised_is_given_back_and_said() -> None:
    cloud = Cloud()
    cloud.provider.request("t4", 1)
    cloud.look()
    cloud.nodes.append(facts("a", T4=1.0))
    found = cloud.look()
    assert found.why == "a node of it joined with 1 T4 in place of 2"
    assert [name for name, _ in cloud.control.drained] == ["a"]
    assert (cloud.seats, found.joins_s) == (0, ())
    cloud.look()
    assert len(cloud.control.drained) == 1, "once"


def test_a_node_that_will_be_gone_is_none_that_is_there() -> None:
    cloud = Cloud()
    cloud.nodes = [facts("a")]
    cloud.look()
    cloud.nodes = [replace(facts("a"), leaves_s=2000.0)]
    cloud.look()
    cloud.provider.request("t4", 2)
    assert cloud.seats == 1, "it is one of the two, and takes no seat"
    assert len(cloud.look().joins_s) == 1


def test_a_node_that_leaves_is_not_replaced_by_ray() -> None:
    cloud = Cloud()
    cloud.nodes = [facts("a"), facts("b")]
    cloud.look()
    cloud.provider.request("t4", 3)
    assert len(cloud.look().joins_s) == 1
    cloud.nodes = [facts("a")]
    assert len(cloud.look().joins_s) == 1
    assert cloud.seats == 2, "of the node that is gone the seat is gone"


def test_a_node_that_was_given_notice_is_ended_where_something_still_runs_there() -> None:
    cloud = Cloud()
    cloud.nodes = [facts("a")]
    cloud.look()
    cloud.provider.request("t4", 2)
    cloud.provider.drain("a", cloud.now_s + 100.0, "no money")
    assert cloud.seats == 0, "nothing more is waited for"
    cloud.look(100.0 + FORCE_S)
    assert cloud.control.ended == []
    cloud.look()
    assert cloud.control.ended == ["a"]


def test_what_was_before_a_service_began_is_no_news() -> None:
    cloud = Cloud()
    cloud.provider.request("t4", 2)
    cloud.look()
    cloud.failed.append(FailedLaunch("t4", 1, cloud.now_s, "no capacity"))
    cloud.look()
    cloud.nodes, cloud.pending = [facts("b", "spot")], {"spot": 1}
    cloud.provider = cloud.started()
    assert cloud.look() == Launching(joins_s=(1000.0 + LAUNCH_S,))
    assert len(cloud.look(kind="spot").joins_s) == 1, "it has not just joined: another is on its way"


def test_seats_of_a_type_that_is_offered_no_more_are_given_up_and_other_groups_are_left_alone() -> None:
    cloud = Cloud()
    for name in (f"{SEAT_NAME}:gone:1.000:0", "somebody else's"):
        cloud.control.groups.append(NamedThing(name.encode(), name))
    cloud.look()
    assert [each.name for each in cloud.control.groups] == ["somebody else's"]
