"""Ray's Jobs API over HTTP, with a deadline on every request and our own errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from .gcs import read_token
from .protocols import ClusterUnreachable

DEADLINE_S = 10.0
UPLOAD_DEADLINE_S = 120.0
# With so many runs, one listing is cheaper than a question for each; unless it would list many more jobs than are asked
# for: Ray keeps those that ended.
_LIST_FROM = 4
_JOBS_A_QUESTION = 10
UNREADABLE = "Ray cannot show this log: it holds bytes that are no UTF-8"


@dataclass(frozen=True)
class JobStatus:
    """What Ray says of a job. `status` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    submission_id: str
    status: str
    message: str
    error_type: str
    started_s: float | None
    ended_s: float | None
    exit_code: int | None = None
    """Of the entrypoint; negative where a signal ended it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    has_driver: bool = False
    """Whether the entrypoint, or a child of it, connected to Ray."""


@dataclass(frozen=True)
class Place:
    """Where the entrypoint of a job runs, and what it holds there."""

    node_id: str
    resources: Mapping[str, float]


class JobExists(Exception):
    """A job of this submission id is known to the cluster already."""


class JobsApi:
    """The Jobs API at `url`. `token_path` holds the cluster's token, if it has one."""

    def __init__(self, url: str, token_path: Path | None = None) -> None:
        self._url = url
        self._token_path = token_path
        self._client: Any = None
        self._jobs_kept = 0
        """That a listing would have, as far as is known."""

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        place: Place | None = None,
    ) -> None:
        """Hand a job to Ray; local folders in `runtime_env` are uploaded. Its entrypoint runs on the head node and
        holds nothing, or in its `place`. Raises JobExists, ClusterUnreachable, ValueError where Ray refuses what it is
        given."""
        client = self._connected()
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                **_placing(place),
            )
            self._jobs_kept += 1
        except RuntimeError as error:
            text = str(error)
            if "already exists" in text:
                raise JobExists(submission_id) from error
            if "status code 400" in text:
                raise ValueError(text) from error
            raise ClusterUnreachable(f"Ray did not take job {submission_id}: {text}") from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def statuses(self, submission_ids: Collection[str]) -> dict[str, JobStatus]:
        """Those of these jobs that Ray knows. Raises ClusterUnreachable."""
        wanted = set(submission_ids)
        if len(wanted) < max(_LIST_FROM, self._jobs_kept / _JOBS_A_QUESTION):
            found = [self._get(f"/api/jobs/{each}") for each in wanted]
        else:
            found = self._get("/api/jobs/") or []
            self._jobs_kept = len(found)
        jobs = [_status(each) for each in found if each and each.get("submission_id") in wanted]
        return {job.submission_id: job for job in jobs}

    def stop(self, submission_id: str) -> None:
        """Ask Ray to end a job; nothing where it has ended or is not known. Raises ClusterUnreachable."""
        self._request("POST", f"/api/jobs/{submission_id}/stop")

    def logs(self, submission_id: str) -> str:
        """What the job printed; empty where Ray has nothing. Raises ClusterUnreachable."""
        reply = self._request("GET", f"/api/jobs/{submission_id}/logs", accept_errors=True)
        if reply.status_code >= 500 and "can't decode" in reply.text:  # Ray reads it as UTF-8, every time anew
            return f"{UNREADABLE}\n"
        return str(reply.json().get("logs") or "") if reply.status_code == 200 else ""

    def _get(self, path: str) -> Any:
        reply = self._request("GET", path)
        return None if reply.status_code == 404 else reply.json()

    def _request(self, method: str, path: str, accept_errors: bool = False) -> Any:
        try:
            reply = self._connected()._do_request(method, path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if reply.status_code in (401, 403):
            raise ClusterUnreachable(f"Ray's Jobs API at {self._url} refuses the token: {reply.text[-500:]}")
        if reply.status_code >= 500 and not accept_errors:
            raise ClusterUnreachable(f"Ray's Jobs API at {self._url} failed: {reply.text[-500:]}")
        return reply

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        if self._client is not None:
            self._client.http.close()
            self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _new_client(self._url, self._token_path)
        return self._client

    def _unreachable(self, error: Exception) -> ClusterUnreachable:
        return ClusterUnreachable(f"Ray's Jobs API at {self._url} does not answer: {error}")


def _new_client(url: str, token_path: Path | None) -> Any:
    """Ray's own client (it packs and uploads code) over connections of ours: with deadlines, the token from its file,
    and deaf to `RAY_ADDRESS` and proxy variables, any of which would send the job to another cluster."""
    from ray.dashboard.modules.dashboard_sdk import SubmissionClient
    from ray.job_submission import JobSubmissionClient

    headers = {"Authorization": f"Bearer {read_token(token_path)}"} if token_path is not None else {}

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def __init__(self) -> None:
            SubmissionClient.__init__(self, url, headers=dict(headers))
            self.http = httpx.Client(base_url=url, headers=headers, trust_env=False)

        def _do_request(
            self, method: str, endpoint: str, *, data: bytes | None = None, json_data: Any = None, **_: Any
        ) -> httpx.Response:
            timeout = DEADLINE_S if data is None else UPLOAD_DEADLINE_S
            return self.http.request(method, endpoint, content=data, json=json_data, timeout=timeout)

    return Client()


def _status(job: Mapping[str, Any]) -> JobStatus:
    return JobStatus(
        submission_id=str(job["submission_id"]),
        status=str(job["status"]),
        message=str(job.get("message") or ""),
        error_type=str(job.get("error_type") or ""),
        started_s=_seconds(job.get("start_time")),
        ended_s=_seconds(job.get("end_time")),
        exit_code=job.get("driver_exit_code"),
        metadata=dict(job.get("metadata") or {}),
        has_driver=job.get("job_id") is not None,
    )


def _placing(place: Place | None) -> dict[str, Any]:
    """The place as Ray's client wants it."""
    if place is None:
        return {"entrypoint_num_cpus": 0}
    named = {name: amount for name, amount in place.resources.items() if name not in ("CPU", "GPU", "memory")}
    return {
        "entrypoint_num_cpus": place.resources.get("CPU", 0),
        "entrypoint_num_gpus": place.resources.get("GPU", 0),
        "entrypoint_memory": int(place.resources.get("memory", 0)),
        "entrypoint_resources": named,
        "entrypoint_label_selector": {"ray.io/node-id": place.node_id},
    }


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
