"""Readers of published traces: facts checked by hand against the files, and every refusal with file, line and hint."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from scheduler.simulate import traces
from scheduler.simulate.traces import alibaba, gavel, sia
from scheduler.simulate.traces.sia_profiles import Machines, Steps
from scheduler.simulate.types import TraceJob
from scheduler.types import Configuration
from workloads.errors import SpecError

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
V100, P100, A100 = "V100-SXM2-16GB", "P100-PCIE-16GB", "A100-SXM4-40GB"
GAVEL_LINE = "{0}\tcmd\tfolder\t-n\t1\t{1}\t{2}\t1\t-1.000000\t{3}"
TABLE = {
    "v100": {"('LM', 1)": {"null": 4.0}, "('LM', 2)": {"null": 7.0}, "('Big', 1)": {"null": 0.0}},
    "v100_unconsolidated": {"('LM', 1)": {"null": 4.0}, "('LM', 2)": {"null": 5.0}},
    "k80": {"('LM', 1)": {"null": 1.0}, "('LM', 2)": {"null": 0}},
    "abacus": {"('LM', 1)": {"null": 0.5}},
}


def on(**counts: int) -> Configuration:
    return Configuration.of(counts)


def of(device: str, count: int = 1) -> Configuration:
    return Configuration.of({device: count})


def refusal(path: Path, **options: object) -> list[str]:
    """What is refused, one string per problem, without the folder."""
    with pytest.raises(SpecError) as caught:
        traces.read(path, **options)  # type: ignore[arg-type]
    return [str(problem).replace(str(path.parent) + "/", "") for problem in caught.value.problems]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Writes a Gavel trace beside its table."""
    (tmp_path / gavel.SIMULATED).write_text(json.dumps(TABLE))
    return tmp_path / "some.trace"


# -------------------- Gavel


@pytest.mark.parametrize(
    ("name", "jobs", "last_s"),
    [
        ("poisson240-multi-s0", 240, 254661),
        ("poisson240-single-s0", 240, 127330),
        ("physical-static", 100, 0),
        ("physical-continuous", 96, 46317),
    ],
)
def test_gavel_traces_have_all_their_jobs(name: str, jobs: int, last_s: float) -> None:
    trace = traces.read(DATA / "gavel" / f"{name}.trace", objective="cost")
    assert (trace.name, len(trace.jobs), trace.jobs[-1].arrives_s) == (name, jobs, last_s)
    rows = [line.split("\t") for line in (DATA / "gavel" / f"{name}.trace").read_text().splitlines()]
    assert [job.work for job in trace.jobs] == [float(row[5]) for row in rows]
    assert [{held.devices for held in job.configurations} for job in trace.jobs] == [{int(row[6])} for row in rows]
    assert {job.objective for job in trace.jobs} == {"cost"}


def test_a_gavel_job_has_the_rates_of_its_table() -> None:
    """The first job of the physical trace, and `('ResNet-18 (batch size 128)', 4)` in the physical table."""
    job = traces.read(DATA / "gavel" / "physical-continuous.trace").jobs[0]
    assert (job.id, job.family, job.work) == ("job-0", "ResNet-18 (batch size 128)", 925982)
    assert dict(job.phases[0].rates) == {
        of("K80", 4): 6.98169990398197,
        of(P100, 4): 45.35074002546124,
        of(V100, 4): 69.95051765177759,
    }
    assert job.phases[0].spread_rates[of(V100, 4)] == 35.36073786760009
    assert job.seconds(of(V100, 4)) == pytest.approx(925982 / 69.95051765177759)
    assert (job.startup_s, job.deadline_s, job.priority) == (0.0, None, 0)


def test_physical_and_simulated_traces_have_different_tables() -> None:
    """K80 cannot hold ResNet-50 with batches of 128 in the physical table: its rate there is 0."""
    family = "ResNet-50 (batch size 128)"
    found = {}
    for name in ("physical-static", "poisson240-single-s0"):
        jobs = traces.read(DATA / "gavel" / f"{name}.trace").jobs
        found[name] = {held for job in jobs if job.family == family for held in job.configurations if held.devices == 1}
    assert found["physical-static"] == {of(V100), of(P100)}
    assert found["poisson240-single-s0"] == {of(V100), of(P100), of("K80")}


def test_gavel_weights_deadlines_and_unknown_devices(lines: Path) -> None:
    lines.write_text(
        "LM\tc\tf\t-n\t1\t400\t1\t5\t2.0\t10\n" + "\n" + GAVEL_LINE.format("LM", 70, 2, 3.5) + "\n",
    )
    second, first = traces.read(lines).jobs[1], traces.read(lines).jobs[0]
    assert (first.id, first.arrives_s, second.id, second.arrives_s) == ("job-1", 3.5, "job-0", 10)
    assert (second.priority, second.deadline_s) == (4, 10 + 2 * 400 / 4)
    assert second.configurations == (on(ABACUS=1), on(K80=1), of(V100))
    assert first.configurations == (of(V100, 2),), "a rate of 0 is impossible"
    assert first.phases[0].spread_rates == {of(V100, 2): 5.0}


def test_bad_gavel_lines_are_all_told(lines: Path) -> None:
    bad = [
        ("lm", 5, 1, 0),
        ("LM", -5, 1, 0),
        ("LM", 5, 1.5, 0),
        ("LM", 5, 1, -1),
        ("LM", 5, 1, "nan"),
        ("Big", 5, 1, 0),
    ]
    bad += [("LM", 5, 16, 0)]
    cut = "LM\tcmd\tfolder"
    lines.write_text("\n".join([GAVEL_LINE.format("LM", 5, 1, 0), *(GAVEL_LINE.format(*one) for one in bad), cut]))
    assert refusal(lines) == [
        "some.trace: line 2, type: unknown model 'lm'\n  hint: did you mean 'LM'?",
        "some.trace: line 3, total steps: expected a whole number of at least 1, got -5",
        "some.trace: line 4, scale factor: expected a whole number of at least 1, got 1.5",
        "some.trace: line 5, arrival time: expected a number of at least 0, got -1\n"
        "  hint: times are seconds and never negative",
        "some.trace: line 6, arrival time: expected a number of at least 0, got nan",
        "some.trace: line 7, scale factor: no device type can hold 'Big' on 1 device\n"
        "  hint: simulation_throughputs.json has it at zero steps a second everywhere",
        "some.trace: line 8, scale factor: no device type can hold 'LM' on 16 devices\n"
        "  hint: simulation_throughputs.json has it on 1, 2",
        "some.trace: line 9: has 3 fields separated by tabs, expected 10\n  hint: the file looks cut off",
    ]


def test_only_so_many_problems_are_told(lines: Path) -> None:
    lines.write_text("\n".join(["x" + "\t" * 9] * 50))
    told = refusal(lines)
    assert len(told) == 21
    assert told[-1] == "some.trace: 280 more problems like these"


def test_a_bad_table_of_throughputs_is_refused(lines: Path, tmp_path: Path) -> None:
    lines.write_text(GAVEL_LINE.format("LM", 5, 1, 0))
    table = tmp_path / gavel.SIMULATED
    for text, wanted in (
        (
            '{"v100": {"(\'LM\', 1)": {"null": ',
            "simulation_throughputs.json: line 1: is not JSON: Expecting value\n  hint: ",
        ),
        ("[]", "simulation_throughputs.json: is not a table of throughputs\n  hint: "),
        ('{"v100": {"LM": {"null": 1}}}', "simulation_throughputs.json: v100: expected a key like"),
        (
            '{"v100": {"(\'LM\', 1)": {}}}',
            "simulation_throughputs.json: v100, ('LM', 1): expected steps a second under",
        ),
        ("", "simulation_throughputs.json: is empty\n  hint: "),
    ):
        table.write_text(text)
        assert refusal(lines)[0].startswith(wanted), text
    table.unlink()
    assert refusal(lines)[0].startswith("simulation_throughputs.json: there is no such file\n  hint: a trace needs")


# -------------------- Sia


@pytest.fixture(scope="module")
def philly() -> dict[str, TraceJob]:
    """One job of each model."""
    jobs = traces.read(DATA / "sia" / "workloads" / "philly-1.csv").jobs
    assert len(jobs) == 160
    return {job.family: job for job in jobs}


def test_sia_jobs_do_their_epochs(philly: dict[str, TraceJob]) -> None:
    """Work: the least progress at the last epoch of any validation curve."""
    assert {name: round(job.work) for name, job in philly.items()} == {
        "bert": 14774,
        "cifar10": 39063,
        "deepspeech2": 28536,
        "imagenet": 576526,
        "yolov3": 103444,
    }
    assert {name: job.startup_s for name, job in philly.items()} == dict(sia.RESTART_S)
    for job in philly.values():
        begins = [phase.begins for phase in job.phases]
        assert begins[0] == 0 and begins == sorted(set(begins)) and begins[-1] < 1


def test_sia_jobs_take_as_long_as_in_sias_own_simulator(philly: dict[str, TraceJob]) -> None:
    """Seconds there with the placement held still and 60 s rounds. Ours knows the steps that theirs estimates, so it is
    no slower (but for the rounds), and up to a third faster where large batches pay."""
    theirs = {
        "cifar10": {of("T4"): 6761, of("T4", 4): 2048, of("T4", 16): 807, of("RTX-2080Ti", 8): 625, of(A100): 1336},
        "bert": {of("T4"): 16338, of("T4", 4): 4077, of("RTX-2080Ti"): 7924, of(A100): 1591, of(A100, 4): 437},
        "yolov3": {of("T4", 16): 10323, of("RTX-2080Ti", 16): 8375, of(A100): 14881, of(A100, 16): 6356},
        "deepspeech2": {of("T4"): 21874, of("T4", 16): 2462, of("RTX-2080Ti", 8): 2622, of(A100, 16): 1569},
    }
    for name, table in theirs.items():
        for held, expected in table.items():
            found = philly[name].seconds(held)
            assert found is not None
            assert 0.70 < found / expected < 1.005, f"{name} on {held}"


def test_sia_jobs_run_on_what_sia_would_give_them(philly: dict[str, TraceJob]) -> None:
    counts: dict[str, list[int]] = {}
    for held in philly["cifar10"].configurations:
        counts.setdefault(held.groups[0][0], []).append(held.devices)
    assert counts == {
        "T4": [1, 2, *range(4, 65, 4)],
        "RTX-2080Ti": [1, 2, 4, 8, 16, 24],
        A100: [1, 2, 4, 8, 16],
        "RTX6000-Turing": [1, 2, 4],
        "V100-SXM2-32GB": [1, 2, 4, 8, 16, 24, 32, 40],
    }
    phase = philly["cifar10"].phases[0]
    assert of("T4") not in phase.spread_rates
    assert phase.spread_rates[of("T4", 2)] < 0.7 * phase.rates[of("T4", 2)]


def test_efficiency_changes_with_progress(philly: dict[str, TraceJob]) -> None:
    """Gradients get noisier, so large batches pay later: many replicas gain more than one does."""
    for name in ("imagenet", "cifar10"):
        first, last = philly[name].phases[0].rates, philly[name].phases[-1].rates
        assert last[of(A100, 16)] / last[of(A100)] > first[of(A100, 16)] / first[of(A100)]


def test_a_rigid_job_has_what_its_user_asked_for() -> None:
    """cifar10-0 of philly-1: six replicas, batches of 2,048. On six T4 of two nodes a step of 342 samples each takes
    0.3107 s and its gain in the first epoch is known from validation-2048.csv."""
    path = DATA / "sia" / "workloads" / "philly-1.csv"
    job = traces.read(path, rigid=True).jobs[0]
    assert job.id == "cifar10-0"
    assert {held.devices for held in job.configurations} == {6}
    with (DATA / "sia" / "profiles" / "cifar10" / "placements-aws.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["placement"] == "33"]
    step_s = np.interp(342, [float(row["local_bsz"]) for row in rows], [float(row["step_time"]) for row in rows])
    sqr, var = np.array([10.73321269096998, 13.6]), 5.4859538034431825
    gain = (var + sqr[0]) / (var / (2048 / 128) + sqr[0])
    expected = gain / step_s / 1.8
    found = job.phases[0].rates[of("T4", 6)]
    assert found == pytest.approx(expected, rel=0.06), "the first epochs are one phase"


def test_phases_take_exactly_the_time_of_their_epochs() -> None:
    held = of("T4")
    speeds = {(held, False): [10.0, 10.2, 20.0, 30.0], (held, True): [5.0, 5.0, 5.1, 9.0]}
    phases = sia.merged(speeds, [0, 100, 200, 300, 400])
    assert [phase.begins for phase in phases] == [0, 0.5, 0.75]
    assert phases[1].rates == {held: 20.0} and phases[1].spread_rates == {held: 5.1}
    job = TraceJob("x", "x", 0, 400, phases)
    assert job.seconds(held) == pytest.approx(100 / 10 + 100 / 10.2 + 100 / 20 + 100 / 30)


def test_steps_between_measured_placements_are_interpolated() -> None:
    def steps(step_s: float, batches: tuple[float, ...] = (8.0, 16.0)) -> Steps:
        return Steps(np.array(batches), np.array([step_s, 2 * step_s]), np.array([0.1, 0.2]))

    machines = Machines({(4, 16): steps(1.0), (6, 24): steps(2.0), (6, 12): steps(1.5), (1, 4): steps(0.5, (4, 8))}, 4)
    between = machines.steps(5, 20)
    assert between is not None
    assert between.step_s.tolist() == pytest.approx([1.5, 3.0])
    on_six = machines.steps(6, 18)
    assert on_six is not None
    assert on_six.step_s.tolist() == pytest.approx([1.75, 3.5])
    for nodes, replicas in ((8, 32), (5, 5), (6, 30), (6, 6)):
        assert machines.steps(nodes, replicas) is None, "nothing is made up beyond what was measured"
    step_s, _ = steps(1.0).at(np.array([4.0, 12.0, 17.0]))
    assert math.isnan(step_s[0]) and step_s[1] == pytest.approx(1.5) and math.isnan(step_s[2])


def test_bad_sia_workloads_are_refused(tmp_path: Path) -> None:
    folder, path = DATA / "sia" / "profiles", tmp_path / "some.csv"
    header = "name,time,application,num_replicas,batch_size\n"
    path.write_text(header + "a,1,cifer10,1,128\nb,-3,bert,1,12\nc,0,bert,0,x\nd,5,bert\n")
    assert refusal(path, profiles=folder) == [
        "some.csv: line 5: has 3 cells, the header has 5\n  hint: the file looks cut off"
    ]
    path.write_text(header + "a,1,cifer10,1,128\nb,-3,bert,1,12\nc,0,bert,0,x\n")
    assert refusal(path, profiles=folder) == [
        "some.csv: line 2, application: unknown model 'cifer10'\n  hint: did you mean 'cifar10'?",
        "some.csv: line 3, time: expected a number of at least 0, got -3\n  hint: times are seconds and never negative",
        "some.csv: line 4, num_replicas: expected a whole number of at least 1, got 0",
        "some.csv: line 4, batch_size: expected a whole number of at least 1, got 'x'",
    ]
    path.write_text("name,time,application,replicas,batch_size\na,1,bert,1,12\n")
    assert refusal(path, profiles=folder) == [
        "some.csv: line 1, column num_replicas: is missing\n  hint: is it 'replicas'?"
    ]
    path.write_text(header)
    assert refusal(path, profiles=folder) == ["some.csv: has a header and no jobs\n  hint: was it written to the end?"]
    path.write_text(header + "a,1,bert,999,384\n")
    assert refusal(path, profiles=folder, rigid=True)[0].startswith(
        "some.csv: line 2, num_replicas: no device type can hold bert with batches of 384 on 999 devices\n  hint: "
    )
    path.write_text(header + "a,1,bert,1,12\n")
    assert "there is no such folder" in refusal(path)[0]


# -------------------- Alibaba


@pytest.fixture(scope="module")
def tasks() -> list[alibaba.AlibabaTask]:
    return alibaba.read_tasks(DATA / "alibaba-gpu-2023" / "openb_pod_list_default.csv")


@pytest.fixture(scope="module")
def nodes() -> list[alibaba.AlibabaNode]:
    return alibaba.read_nodes(DATA / "alibaba-gpu-2023" / alibaba.NODE_LIST)


def test_alibabas_cluster_and_tasks(tasks: list[alibaba.AlibabaTask], nodes: list[alibaba.AlibabaNode]) -> None:
    assert (len(nodes), sum(node.gpus for node in nodes), len(tasks)) == (1213, 6212, 8152)
    assert nodes[0] == alibaba.AlibabaNode("openb-node-0000", 64000, 262144, 2, "P100")
    assert Counter(task.num_gpu for task in tasks) == {1: 6989, 0: 1088, 2: 16, 4: 15, 8: 44}
    assert sum(task.num_gpu * task.gpu_milli for task in tasks) == 6_086_800
    assert tasks[1] == alibaba.AlibabaTask(
        "openb-pod-0001", 6000, 12288, 1, 460, (), "LS", "Running", 427061, 12902960, 427061
    )
    snapshot = alibaba.snapshot(nodes)
    assert snapshot.total("G2") == 4392 and snapshot.device_types["G2"].price_usd_h is None
    assert snapshot.total("T4") == 842 and snapshot.total("V100-SXM2-32GB") == 204


def test_models_that_a_task_may_have() -> None:
    tasks = alibaba.read_tasks(DATA / "alibaba-gpu-2023" / "openb_pod_list_gpuspec33.csv")
    assert Counter(task.models for task in tasks)[()] == 5764
    assert Counter(task.models for task in tasks)["V100M16", "V100M32"] == 141 + 22, "one that is named twice is one"


def test_what_a_simulation_holds_of_alibabas_tasks(
    tasks: list[alibaba.AlibabaTask], nodes: list[alibaba.AlibabaNode]
) -> None:
    found = alibaba.convert(Path("list.csv"), tasks, nodes)
    assert found.skipped == {"no device": 1088, "never ran": 861}
    assert len(found.trace.jobs) == 8152 - 1088 - 861
    assert found.rounded == 2573 and found.rounded_devices == pytest.approx(1086.07)
    assert found.trace.name == "list (shares of devices as whole ones)"
    first = found.trace.jobs[0]
    assert (first.id, first.arrives_s, first.work) == ("openb-pod-0000", 0, 12537496)
    eight = next(job for job in found.trace.jobs if job.configurations[0].devices == 8)
    assert {held.groups[0][0] for held in eight.configurations} == {"G2", "G3", V100, "V100-SXM2-32GB"}
    assert eight.seconds(of("G2", 8)) == eight.work / 8
    without = alibaba.convert(Path("list.csv"), tasks, nodes, fractions="skip")
    assert without.skipped["a share of a device"] == 2573 and without.trace.name == "list"


def test_bad_alibaba_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / alibaba.NODE_LIST).write_text("sn,cpu_milli,memory_mib,gpu,model\nn,64000,262144,2,P100\n")
    path = tmp_path / "tasks.csv"
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
    path.write_text(header + "a,1,1,1,1500,,,,0,9,0\nb,1,1,2,500,,,,0,9,0\nc,1,1,1,500,,,,5,3,5\nd,1,1,-1,5,,,,0,9,0\n")
    assert refusal(path) == [
        "tasks.csv: line 2, gpu_milli: expected 1 to 1000 thousandths of a device, got 1500",
        "tasks.csv: line 3, gpu_milli: a share of several devices\n"
        "  hint: only a task of one device may ask a share of it",
        "tasks.csv: line 4, deletion_time: is 2 s before its start: a negative duration",
        "tasks.csv: line 5, num_gpu: expected a whole number of at least 0, got -1",
    ]
    path.write_text(header + "a,1,1,8,1000,,,,0,9,0\nb,1,1,1,1000,P10,,,0,9,0\nc,99000,1,1,1000,P100,,,0,9,0\n")
    assert refusal(path) == [
        "tasks.csv: line 2: task a: no node can hold it: 8 devices, 0.001 cores and 1 MiB on one node\n"
        "  hint: all its devices are on one node: see gpu, cpu_milli and memory_mib of the node list",
        "tasks.csv: line 3: task b: no node has the model P10\n  hint: did you mean 'P100'?",
        "tasks.csv: line 4: task c: no node can hold it: 1 devices of P100, 99 cores and 1 MiB on one node\n"
        "  hint: all its devices are on one node: see gpu, cpu_milli and memory_mib of the node list",
    ]


# -------------------- any file


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content, wanted in (
        (b"", "x: is empty\n  hint: was it written to the end?"),
        (b"\n \n", "x: is empty\n  hint: was it written to the end?"),
        (b"\x89PNG\xff\x00", "x: is not text\n  hint: traces are text, or the service's raywise.db"),
        (b"kind: train\n", f"x: is no trace\n  hint: {traces.FORMATS}"),
        (b"{}", "x: is JSON, not a trace\n  hint: a table of throughputs belongs to a trace: give the trace"),
        (
            b"sn,cpu_milli,memory_mib,gpu,model\n",
            "x: is a list of nodes\n  hint: give the list of tasks; this belongs to it",
        ),
    ):
        path.write_bytes(content)
        assert refusal(path) == [wanted]
    path.unlink()
    assert refusal(path) == ["x: there is no such file\n  hint: give the path of a trace"]
    assert refusal(tmp_path)[0].endswith("is a folder\n  hint: give one file of it")
    multi = DATA / "alibaba-gpu-2023" / "openb_pod_list_multigpu50.csv"
    assert "says not when its tasks ran" in refusal(multi)[0]
