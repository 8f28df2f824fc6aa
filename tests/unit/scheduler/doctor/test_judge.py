"""Every judgement of the doctor: facts that are good, and each way in which they are not."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from cluster.inventory import NodeFacts
from cluster.probe import ClusterProbe, NodeHealth
from scheduler.doctor import Facts, judge, worst
from scheduler.doctor.facts import DiskFacts, HomeFacts, MachineFacts, PriceFacts, ServiceFacts, StoreFacts
from scheduler.doctor.findings import Finding, ok, short
from scheduler.doctor.home import judge_home, judge_service, judge_store
from scheduler.doctor.machine import judge_machine
from scheduler.doctor.ray_cluster import judge_cluster, judge_prices

GIB = 2**30
DISK = DiskFacts("home", "/var/lib/raywise", 50 * GIB, 100 * GIB)
MACHINE = MachineFacts(
    python=(3, 11, 7),
    packages={"ray": "2.60.0", "torch": "2.13.0+cpu", "transformers": "5.23.0"},
    ray_error=None,
    open_files=65_536,
    memory_bytes=32 * GIB,
    memory_available_bytes=16 * GIB,
    shm_bytes=16 * GIB,
    disks=(DISK, replace(DISK, what="spill", path="/tmp")),
)
HOME = HomeFacts("/var/lib/raywise", 0o700, True, {"/var/lib/raywise/token": 0o600})
STORE = StoreFacts("/var/lib/raywise/raywise.db", integrity="ok", version=2, expected_version=2, older_versions=(1,))
SERVICE = ServiceFacts("https://127.0.0.1:8443", 8443, ready_reasons=(), last_cycle_age_s=0.4)
T4 = {"raywise.io/device": "T4"}
PROBE = ClusterProbe(
    "10.0.0.5:6379",
    "http://10.0.0.5:8265",
    nodes=(NodeFacts("a", "head", {}, {"CPU": 4.0}), NodeFacts("b", "gpu", T4, {"GPU": 2.0})),
    health=(
        NodeHealth("a", "one", True, -3.0, 0.4, {"/": 0.5}),
        NodeHealth("b", "two", True, 0.5, 0.6, {"/": 0.7}, gpus=2),
    ),
    ray_version="2.60.0",
    head_ahead_s=0.3,
    open_to_all=False,
)
FACTS = Facts(MACHINE, HOME, STORE, SERVICE, PROBE)


def found(findings: list[Finding], subject: str) -> list[tuple[str, str]]:
    """Level and words of what is found of a subject; what is not well says what to do."""
    assert all(bool(each.do) == (each.level != "ok") for each in findings)
    return [(each.level, each.found) for each in findings if each.subject == subject]


def test_where_all_is_well_nothing_is_to_be_done() -> None:
    findings = judge(FACTS)
    assert worst(findings) == "ok", [each for each in findings if each.level != "ok"]
    assert {each.do for each in findings} == {""}
    subjects = [each.subject for each in findings]
    for subject in ("python", "ray", "torch", "store integrity", "service", "ready", "clocks", "gpus", "prices"):
        assert subjects.count(subject) == 1


@pytest.mark.parametrize(
    ("subject", "changes", "level", "words"),
    [
        ("python", {"python": (3, 10, 2)}, "fail", "3.10.2, too old"),
        ("ray", {"packages": {}}, "fail", "not installed"),
        ("ray", {"packages": {"ray": "2.59.1"}}, "fail", "2.59.1; Raywise needs 2.60"),
        ("ray", {"packages": {"ray": "2.600.0"}}, "fail", "2.600.0; Raywise needs 2.60"),
        ("ray", {"ray_error": "ImportError: libx"}, "fail", "2.60.0 cannot be imported: ImportError: libx"),
        ("torch", {"packages": {"torch": "2.5.1+cu124"}}, "fail", "2.5.1+cu124, too old"),
        ("torch", {"packages": {}}, "fail", "not installed"),
        ("transformers", {"packages": {"transformers": "4.57.0"}}, "fail", "4.57.0, too old"),
        ("user", {"is_root": True}, "warn", "root"),
        ("open files", {"open_files": 1023}, "fail", "at most 1,023 open files"),
        ("open files", {"open_files": 1024}, "warn", "at most 1,024 open files"),
        ("memory", {"memory_available_bytes": 4 * GIB}, "warn", "4.0 of 32.0 GiB available"),
        ("memory", {"memory_available_bytes": GIB}, "fail", "1.0 of 32.0 GiB available"),
        ("/dev/shm", {"shm_bytes": None}, "warn", "not there"),
        ("/dev/shm", {"shm_bytes": GIB // 16}, "warn", "0.1 GiB"),
        ("gpu driver", {"gpu_error": "driver mismatch"}, "fail", "nvidia-smi fails: driver mismatch"),
        ("gpu driver", {"gpus": ("T4", "T4", "A10")}, "ok", "1 x A10, 2 x T4"),
    ],
)
def test_the_machine(subject: str, changes: dict[str, Any], level: str, words: str) -> None:
    assert found(judge_machine(replace(MACHINE, **changes), runs_ray=True), subject) == [(level, words)]


@pytest.mark.parametrize(
    ("what", "free", "total", "level"),
    [
        ("home", GIB // 10, 100 * GIB, "warn"),
        ("home", GIB // 10 - 1, 100 * GIB, "fail"),
        ("home", GIB, 100 * GIB, "ok"),
        ("spill", 11 * GIB, 100 * GIB, "ok"),
        ("spill", 9 * GIB, 100 * GIB, "warn"),
        ("spill", 4 * GIB, 100 * GIB, "fail"),
    ],
)
def test_disks(what: str, free: int, total: int, level: str) -> None:
    facts = replace(MACHINE, disks=(DiskFacts(what, "/x", free, total),))
    assert [each[0] for each in found(judge_machine(facts, runs_ray=True), f"disk: {what}")] == [level]


def test_shared_memory_is_the_business_of_machines_that_run_ray() -> None:
    assert found(judge_machine(MACHINE, runs_ray=False), "/dev/shm") == []
    unlimited = replace(MACHINE, open_files=sys.maxsize)
    assert found(judge_machine(unlimited, runs_ray=False), "open files")[0][0] == "ok"


@pytest.mark.parametrize(
    ("subject", "changes", "level", "words"),
    [
        ("home", {"mode": None}, "ok", "/var/lib/raywise is not made yet"),
        ("home", {"owned": False}, "fail", "/var/lib/raywise is another user's"),
        ("home", {"mode": 0o755}, "fail", "/var/lib/raywise is open to others (mode 0755)"),
        ("home", {}, "ok", "/var/lib/raywise (mode 0700)"),
        ("secrets", {"private_modes": {"/k": 0o640, "/t": 0o600}}, "fail", "/k can be read by others (mode 0640)"),
        ("secrets", {}, "ok", "1 files, their owner's only"),
    ],
)
def test_the_home(subject: str, changes: dict[str, Any], level: str, words: str) -> None:
    assert found(judge_home(replace(HOME, **changes)), subject) == [(level, words)]


@pytest.mark.parametrize(
    ("subject", "changes", "level", "words"),
    [
        ("store", {"exists": False}, "ok", "/var/lib/raywise/raywise.db is not made yet"),
        ("store", {"error": "not a database"}, "fail", "/var/lib/raywise/raywise.db: not a database"),
        ("store", {"write_error": "disk full"}, "fail", "/var/lib/raywise/raywise.db cannot be written: disk full"),
        ("store", {"size_bytes": 5 * GIB}, "warn", "/var/lib/raywise/raywise.db, 5120.0 MiB"),
        ("store", {"size_bytes": 2**20}, "ok", "/var/lib/raywise/raywise.db, 1.0 MiB"),
        ("store version", {"version": 1}, "warn", "1, this Raywise writes 2"),
        ("store version", {"version": 3}, "fail", "3; this Raywise reads 2"),
        ("store integrity", {"integrity": "row 3 missing"}, "fail", "row 3 missing"),
        ("store integrity", {}, "ok", "ok"),
    ],
)
def test_the_store(subject: str, changes: dict[str, Any], level: str, words: str) -> None:
    assert found(judge_store(replace(STORE, **changes)), subject) == [(level, words)]


@pytest.mark.parametrize(
    ("facts", "subject", "expected"),
    [
        (ServiceFacts(), "service", [("warn", "none runs from this home")]),
        (ServiceFacts(), "port", []),
        (ServiceFacts(configured_port=80), "port", [("ok", "80 is free")]),
        (
            ServiceFacts(configured_port=80, port_error="in use by x"),
            "port",
            [("fail", "80 cannot be had: in use by x")],
        ),
        (SERVICE, "port", []),
        (SERVICE, "service", [("ok", "https://127.0.0.1:8443 answers")]),
        (
            replace(SERVICE, health_error="timed out"),
            "service",
            [("fail", "https://127.0.0.1:8443 does not answer: timed out")],
        ),
        (replace(SERVICE, health_error="timed out"), "ready", []),
        (replace(SERVICE, ready_reasons=("a", "b")), "ready", [("fail", "a"), ("fail", "b")]),
        (replace(SERVICE, last_cycle_age_s=None), "ready", [("ok", "yes")]),
        (SERVICE, "ready", [("ok", "the last cycle ended 0.4 s ago")]),
        (
            replace(SERVICE, ready_reasons=None, last_cycle_age_s=61.0),
            "ready",
            [("fail", "the last cycle ended 61 s ago")],
        ),
        (
            replace(SERVICE, ready_reasons=None, last_cycle_age_s=None),
            "ready",
            [("warn", "the service does not say whether it is ready")],
        ),
        (replace(SERVICE, tls_error="no pair"), "tls", [("fail", "no pair")]),
        (replace(SERVICE, tls_warnings=("expires soon",)), "tls", [("warn", "expires soon")]),
    ],
)
def test_the_service(facts: ServiceFacts, subject: str, expected: list[tuple[str, str]]) -> None:
    assert found(judge_service(facts), subject) == expected


def sick(node: int, **changes: Any) -> dict[str, Any]:
    """The probe with one node's health changed."""
    health = list(PROBE.health)
    health[node] = replace(health[node], **changes)
    return {"health": tuple(health)}


@pytest.mark.parametrize(
    ("subject", "changes", "expected"),
    [
        ("cluster", {}, [("ok", "the control service at 10.0.0.5:6379 answers")]),
        ("cluster", {"control_error": "UNAVAILABLE"}, [("fail", "UNAVAILABLE")]),
        ("nodes", {"control_error": "UNAVAILABLE"}, []),
        ("nodes", {"nodes": ()}, [("fail", "none is alive")]),
        ("nodes", sick(1, alive=False), [("warn", "2 alive, 1 dead: two")]),
        ("dashboard", {"dashboard_error": "status 401"}, [("fail", "http://10.0.0.5:8265: status 401")]),
        ("jobs api", {"dashboard_error": "status 401"}, []),
        ("jobs api", {"jobs_error": "status 500"}, [("fail", "status 500")]),
        ("ray versions", {"ray_version": "2.59.0"}, [("fail", "the cluster has 2.59.0, this machine 2.60.0")]),
        ("labels", {}, [("ok", "devices: T4")]),
        ("labels", {"nodes": (NodeFacts("b", "gpu", {}, {"GPU": 2.0}),)}, [("warn", "no raywise.io/device on gpu")]),
        (
            "labels",
            {"nodes": (NodeFacts("b", "gpu", {"ray.io/accelerator-type": "T4"}, {"GPU": 2.0}),)},
            [("ok", "no node has accelerators")],
        ),
        ("ray token", {"open_to_all": True}, [("fail", "the dashboard answers without one")]),
        ("ray token", {"open_to_all": None}, [("ok", "is asked for")]),
        ("clocks", {}, [("ok", "at most 0.5 s apart")]),
        ("clocks", {"head_ahead_s": -7.0}, [("warn", "the head is 7 s off")]),
        ("clocks", sick(1, ahead_s=61.0), [("fail", "two is 61 s off")]),
        ("clocks", sick(1, ahead_s=-20.0), [("ok", "at most 0.3 s apart")]),
        ("clocks", sick(1, ahead_s=-36.0), [("warn", "two is 6 s off")]),
        ("clocks", {"head_ahead_s": None, "health": ()}, [("ok", "nobody says")]),
        ("node memory", sick(0, memory_used=0.9), [("warn", "90% in use on one, the fullest node")]),
        ("node memory", sick(0, memory_used=0.96), [("fail", "96% in use on one, the fullest node")]),
        ("node memory", {"health": ()}, []),
        ("node disks", sick(1, disk_used={"/": 0.5, "/data": 0.93}), [("warn", "93% of /data in use on two")]),
        ("gpus", {}, [("ok", "2, all of them Ray's")]),
        ("gpus", sick(1, gpus=4), [("warn", "two: 4 by its driver, 2 in Ray")]),
        ("gpus", sick(1, gpus=0), [("warn", "two: 0 by its driver, 2 in Ray")]),
    ],
)
def test_the_cluster(subject: str, changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(judge_cluster(replace(PROBE, **changes), "2.60.0", local=False), subject) == expected


def test_a_cluster_without_a_token_on_this_machine_alone_is_only_warned_of() -> None:
    findings = judge_cluster(replace(PROBE, open_to_all=True), "2.60.0", local=True)
    assert found(findings, "ray token") == [("warn", "the dashboard answers without one")]


def test_several_nodes_of_one_machine_see_the_same_gpus() -> None:
    health = tuple(replace(each, hostname="one", gpus=2) for each in PROBE.health)
    assert found(judge_cluster(replace(PROBE, health=health), "2.60.0", local=True), "gpus") == [
        ("ok", "2, all of them Ray's")
    ]


def test_prices_and_the_inventory() -> None:
    assert judge_prices(PriceFacts()) == [ok("prices", "none is old")]
    findings = judge_prices(PriceFacts(("T4 is of 2024",), ("an unknown GPU",)))
    assert found(findings, "prices") == [("warn", "T4 is of 2024")]
    assert found(findings, "inventory") == [("warn", "an unknown GPU")]


def test_without_a_cluster_it_says_so() -> None:
    findings = judge(replace(FACTS, cluster=None))
    assert found(findings, "cluster") == [("warn", "none is known")]
    assert found(findings, "/dev/shm") == [("ok", "16.0 GiB")], "a cluster may be started here"


def test_many_names_are_cut_short() -> None:
    assert short("abcdef") == "a, b, c, d and 2 more"
    assert worst([]) == "ok"
