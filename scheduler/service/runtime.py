"""Composition root of the service: cluster, store, policy and engine put together, and the thread that runs cycles."""

from __future__ import annotations

import datetime
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates, measure_host, measure_reduce
from cluster.keeper import Keeper
from cluster.local import ANSWER_PATIENCE_S, LocalCluster
from cluster.offers import local_offers
from cluster.own_code import remove_copy
from cluster.ray_executor import RayExecutor
from cluster.ray_observer import RayObserver, Renting
from cluster.types import Snapshot
from workloads.errors import SpecError
from workloads.loading import Submission
from workloads.spec import WorkloadSpec

from ..admission import FileProfiler, StepPlan, admit, plan_steps
from ..admission.code import pack_code
from ..admission.outputs import in_use
from ..collecting import Collector
from ..engine import Engine, Upstream
from ..engine.launch import progress_path
from ..estimate.model_profile import use_cache
from ..estimate.work import Work
from ..log_context import leave_cycle
from ..policy import Policy, create
from ..states import LIVE
from ..store import Event, Record, StoreError, StoreUnclearError
from ..types import QueueRules
from . import auth
from .home import Home
from .logs import SECRETS
from .notify import Supervisor
from .opening import open_store
from .pulse import Pulse
from .readiness import ReadinessFacts
from .run_logs import RunLogs
from .telling import told
from .waiting import Waiting

log = logging.getLogger(__name__)

CYCLE_S = 1.0
ID_TRIES = 5
"""Ids are drawn at random: one in thousands is taken where thousands have the same name."""
STOP_S = 30.0
LOGS_S = 5.0
"""So long a service that ends goes on with copying logs."""
LOCAL_BACKOFF_S = 15.0
"""The first pause after a failed launch where launches take seconds, not minutes."""
PROBE_SETTING = "probe"
"""The setting that is written to see whether the store can be."""
END_FILE = "ended"
"""In the home folder: commands touch it when they are over."""
LOGS_TO_KEEP = "logs-to-keep"
"""In the home folder: a note for each attempt whose log is still to be copied."""


@dataclass(frozen=True)
class ClusterAccess:
    """How to reach a Ray cluster. `local` is set where it runs on this machine and was started for this home."""

    address: str
    dashboard_url: str
    token_path: Path | None = None
    local: LocalCluster | None = None
    renting: Renting | None = None
    """What may be rented there."""


_ACCEPTING = threading.Lock()
"""Held from the look at what others write to the record that this one does."""


def host_rates(home: Home) -> HostRates:
    """This machine's rates: measured once, then read from the cache; again where the home was made on another machine,
    or the machine has other cores or memory now."""
    try:
        known = HostRates.from_json(json.loads(home.host_file.read_text()))
        if known.of_this_machine:
            return known
        log.info("%s is of another machine: this one is measured", home.host_file)
    except (FileNotFoundError, ValueError, TypeError):
        pass
    rates = replace(measure_host(), reduce_bytes_s=measure_reduce())
    home.prepare()
    home.host_file.write_text(json.dumps(rates.to_json()))
    return rates


def local_cluster(
    home: Home, definition: ClusterDefinition, catalog: Catalog, scenario: Path | None = None
) -> ClusterAccess:
    """The cluster this home started before, if its head still runs; else a new one, whose rented nodes behave as
    `scenario` has it. Raises ClusterStartError."""
    cluster = LocalCluster.open(home.cluster)
    if cluster is None or not cluster.is_alive(ANSWER_PATIENCE_S):
        start = LocalCluster.start
        cluster = start(definition, home.cluster, catalog=catalog, on_progress=log.info, scenario=scenario)
    offers = tuple(each for each in local_offers(definition, host_rates(home)) if each.node_type in cluster.rents)
    caps = (definition.rent_cap_usd_h, definition.rent_cap_usd_month)
    renting = Renting(offers, *caps, LOCAL_BACKOFF_S) if offers else None
    return ClusterAccess(cluster.address, cluster.dashboard_url, cluster.token_path, cluster, renting)


class _FilesAsTheyAre:
    """The engine's profiler: what a step needs has been written by now, so nothing is promised."""

    def work(self, spec: WorkloadSpec, upstream: Mapping[str, Upstream]) -> Work:
        """The work in numbers. Raises SpecError."""
        return FileProfiler().work(spec, upstream)


class Runtime:
    """The running parts of one service."""

    def __init__(
        self,
        home: Home,
        access: ClusterAccess,
        catalog: Catalog,
        policy: str = "market",
        queues: Mapping[str, QueueRules] | None = None,
        *,
        store: str | None = None,
        cycle_s: float = CYCLE_S,
        supervisor: Supervisor | None = None,
    ) -> None:
        """`store` is the path or URL of one elsewhere; `supervisor` is told of each cycle that came to its end."""
        self.home, self.access, self.catalog = home, access, catalog
        self.policy: Policy = create(policy)
        host = host_rates(home)
        token_path = access.token_path
        self.observer = RayObserver(access.address, catalog, host, token_path, renting=access.renting)
        self.executor = RayExecutor(
            access.dashboard_url,
            access.address,
            self._progress_path,
            token_path,
            staging=home.path / "stage",
            shared_files=access.local is not None,
            end_file=home.path / END_FILE if access.local is not None else None,
            logs_dir=None if access.local is None else access.local.logs_dir,
        )
        self.logs = RunLogs(self.executor, home.path / LOGS_TO_KEEP)
        use_cache(home.profiles)
        self.store = open_store(home, store)
        token = home.ensure_token()
        SECRETS.add(token, None if token_path is None else _text_of(token_path))
        auth.remember(self.store, token)
        self.engine = Engine(
            told(self.store),
            self.observer,
            self.executor,
            self.policy,
            _FilesAsTheyAre(),
            time.time,
            on_end=self._attempt_ended,
            provider=self.observer.provider,
            queues=queues,
        )
        self.pulse = Pulse(cycle_s)
        self._supervisor = supervisor or Supervisor({})
        self._waiting, self._stop = Waiting(home.path / END_FILE, cycle_s), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        local = access.local
        self._keeper = None if local is None else Keeper(local, time.monotonic, on_mended=lambda _: self.wake())

    def start(self) -> None:
        """Begin to run cycles, and to bring back what dies of a cluster of our own."""
        self._thread.start()
        self.logs.keeper.take_up()
        if self._keeper is not None:
            self._keeper.start()

    def stop(self) -> None:
        """Finish the present cycle, if it does so in `STOP_S`, and end; what runs on the cluster goes on."""
        self._stop.set()
        self._waiting.wake()
        if self._keeper is not None:
            self._keeper.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_S)
        if self._thread.is_alive():  # the next start takes up what it left: a record is written before each act
            log.warning("the cycle has not come to its end in %.0f s: it is given up", STOP_S)
        self.logs.keeper.close(LOGS_S)
        self.executor.close()
        self.observer.close()
        self.store.close()

    def readiness_facts(self) -> ReadinessFacts:
        """What is known of the service's work, for `readiness`."""
        return self.pulse.facts(lambda: self.store.set_setting(PROBE_SETTING, f"{time.time():.0f}"))

    def wake(self) -> None:
        """Run the next cycle now."""
        self._waiting.wake()

    def submit(
        self, submission: Submission, owner: str = "admin", request: tuple[str, str] | None = None
    ) -> list[Record]:
        """Check and store a submission; `request` is its idempotency key and digest. Raises SpecError or StoreError;
        nothing is stored then, unless it is a StoreUnclearError."""
        now_s = time.time()
        records = [replace(record, owner=owner) for record in self._admitted(submission, now_s)]
        event = {"file": submission.file, "pipeline": records[0].pipeline_id, "owner": owner}
        events = [Event("submitted", "a user submitted it", record.id, at_s=now_s, data=event) for record in records]
        try:
            for record in records:
                Path(record.run_dir).mkdir(parents=True, exist_ok=True)
                if record.code_path is not None:
                    pack_code(Path(str(record.spec["code"])), Path(record.code_path))
            with _ACCEPTING:  # who comes next sees the outputs of this
                if problems := in_use(records, self.store.select(states=LIVE), self.home.runs):
                    raise SpecError(*(replace(problem, file=submission.file) for problem in problems))
                self.store.add(records, events, request)
        except BaseException as error:
            if not (isinstance(error, StoreError) and self._is_stored(records[0])):
                for record in records:
                    shutil.rmtree(record.run_dir, ignore_errors=True)
                raise
            log.warning("%s is stored, though it was said that it is not: %s", records[0].id, error)
        self.wake()
        return records

    def _is_stored(self, record: Record) -> bool:
        """Whether a commit that failed has arrived all the same: the connection may break before the answer. Raises
        StoreUnclearError where that cannot be seen: the folder is left then, for what may run in it."""
        try:
            return self.store.is_stored(record)
        except StoreError as error:
            raise StoreUnclearError(f"{record.id} may have been accepted: {error}") from error

    def _admitted(self, submission: Submission, now_s: float) -> list[Record]:
        """Its workloads, under ids that no other has. Raises SpecError."""
        snapshot = self.engine.as_measured(self.observer.snapshot())
        for _ in range(ID_TRIES):
            records = admit(
                submission,
                runs=self.home.runs,
                catalog=self.catalog,
                snapshot=snapshot,
                calibration=self.engine.calibration,
                now_s=now_s,
                home=self.home.path,
            )
            if not any(Path(record.run_dir).exists() for record in records):
                return records
        raise StoreError(f"no free id was found for {submission.name} in {ID_TRIES} tries")

    def plan(self, submission: Submission) -> list[StepPlan]:
        """What would be chosen on the idle cluster. Raises SpecError."""
        return plan_steps(
            submission,
            self.policy,
            catalog=self.catalog,
            snapshot=self.engine.as_measured(self.observer.snapshot()),
            calibration=self.engine.calibration,
            home=self.home.path,
        )

    def stale_prices(self, snapshot: Snapshot) -> list[str]:
        """A sentence for each device type whose price is old."""
        today = datetime.datetime.now(datetime.UTC).date()
        sentences = (self.catalog.stale(kind, today) for kind in snapshot.device_types.values())
        return [sentence for sentence in sentences if sentence is not None]

    def cancel(self, record: Record, cause: str = "the user asked for it") -> None:
        """Ask for a workload to be ended; the next cycle does it."""
        self.store.request_cancel(record.id, Event("cancel-requested", cause, record.id, at_s=time.time()))
        self.wake()

    def _attempt_ended(self, record: Record) -> None:
        self.logs.keep(record)
        remove_copy(Path(record.run_dir), record.run_id)

    def _progress_path(self, run_id: str) -> Path:
        return progress_path(str(self.home.runs / run_id.partition(".")[0]), run_id)

    def _loop(self) -> None:
        collector = Collector(time.monotonic)
        while not self._stop.is_set():
            try:
                report = self.engine.run_cycle()
            except Exception as error:  # a defect in one cycle must not end the service; the next starts from the store
                log.exception("cycle %d failed", self.engine.cycle)
                self.pulse.failed(error)
            else:
                # Without its cluster a cycle decides nothing, but it ends: to restart the service would not help.
                self.pulse.ended(None if report is not None else f"nothing answers at {self.access.address}")
                self._supervisor.alive()
            leave_cycle()
            collector.between_cycles()
            self._waiting.until_next()


def _text_of(path: Path) -> str | None:
    """What a file of one secret says; None where it cannot be read yet."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def clean_environment() -> dict[str, str]:
    """The environment for the service: without PYTHONPATH, through which a user's modules could stand before ours."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
