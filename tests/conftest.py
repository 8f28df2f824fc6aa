"""Fixtures of the whole suite. One real cluster is started for a session, when the first test asks for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition
from cluster.host import HostRates
from cluster.local import LocalCluster
from cluster.processes import members

os.environ.pop("COLUMNS", None)  # the processes of pytest-xdist have it: tables are as wide as in a pipe
# How long an example takes is no part of any test: other processes have the cores too.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The shipped catalog."""
    return Catalog.load()


@pytest.fixture(scope="session")
def host_rates() -> HostRates:
    """A host core of round numbers: 50 GFLOP/s, 10 GB/s; two cores, 16 GB."""
    return HostRates(core_flops=50e9, core_bandwidth_bytes_s=10e9, cores=2, memory_bytes=16e9)


@pytest.fixture(scope="session")
def definition(catalog: Catalog) -> ClusterDefinition:
    """The shipped cluster: a head, a node of two emulated T4 and a node of one emulated A100."""
    return ClusterDefinition.load(catalog=catalog)


@pytest.fixture(scope="session")
def traced_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the profiles of models, to be the `profiles` of a test's home: each model is traced once for all
    tests whose subject is what is made of the profile."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "profiles"  # one for all processes
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def local_cluster(
    definition: ClusterDefinition, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """A real cluster of three nodes, with emulated devices also where there are GPUs; in a home folder, so that the
    service of that home takes it for its own. Leaves nothing behind."""
    home = tmp_path_factory.mktemp("home")
    cluster = LocalCluster.start(definition, home / "cluster", catalog=catalog, gpus=())
    yield cluster
    cluster.stop()
    assert not members(cluster.cluster_id)
    assert not cluster.temp_dir.exists()
    shutil.rmtree(home)
