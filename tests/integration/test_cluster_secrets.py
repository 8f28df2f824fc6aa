"""Ray's own door: clusters that we start ask for a token, which lies in a file for its owner and nowhere else."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.local import LocalCluster
from cluster.processes import members

pytestmark = pytest.mark.ray


def test_rays_dashboard_and_jobs_refuse_who_has_no_token(local_cluster: LocalCluster) -> None:
    token = local_cluster.token_path.read_text()
    with httpx.Client(base_url=local_cluster.dashboard_url, trust_env=False, timeout=30.0) as client:
        for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/nodes"):
            assert client.get(path).status_code in (401, 403), path
            wrong = {"Authorization": "Bearer " + "0" * len(token)}
            assert client.get(path, headers=wrong).status_code in (401, 403), path
        job = {"entrypoint": "touch /tmp/never"}
        assert client.post("/api/jobs/", json=job).status_code in (401, 403)
        assert client.get("/api/jobs/", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_the_token_is_in_a_file_for_its_owner_and_in_no_process(local_cluster: LocalCluster) -> None:
    """Command lines are for everybody to read, environments for whoever runs as the same user: both name the file."""
    path = local_cluster.token_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert len(token) == 64, "256 bits"
    seen = 0
    for process in members(local_cluster.cluster_id):
        try:
            running = psutil.Process(process.pid)
            line, environment = running.cmdline(), running.environ()
        except psutil.NoSuchProcess:
            continue
        seen += 1
        assert token not in " ".join(line)
        assert token not in " ".join(environment.values())
    assert seen >= 3
    for file in (local_cluster.folder / "cluster.json", *Path(local_cluster.temp_dir).glob("*.log")):
        assert token not in file.read_text(errors="replace"), file


def test_what_a_cluster_leaves_for_temporary_files_is_for_its_owner(local_cluster: LocalCluster) -> None:
    assert stat.S_IMODE(local_cluster.temp_dir.stat().st_mode) == 0o700
