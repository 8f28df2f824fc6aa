"""Short ways to ask the API in tests."""

from __future__ import annotations

import re
from typing import Any

from fastapi.testclient import TestClient

from scheduler.service.api.openapi import statuses
from scheduler.service.api.problems import KINDS

COMMAND = "kind: command\nname: hello\ncommand: echo hello\nresources: {devices: cpu}\nexpected_runtime: 10s\n"
PIPELINE = """
kind: pipeline
name: two
steps:
  - {name: first, kind: command, command: x, resources: {devices: cpu}, expected_runtime: 10s}
  - {name: second, kind: command, command: y, needs: [first], resources: {devices: [T4]}, expected_runtime: 10s}
"""
TRAIN = """
kind: batch-infer
name: long
input: s3://bucket/rows.parquet
entrypoint: mine:Predictor
expected_runtime: 1h
resources: {devices: [T4], count: 1..2}
"""


def submit(api: TestClient, text: str = COMMAND, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """The answer to a submission."""
    body = {"text": text, "base": "/", "file": "f.yaml", **fields}
    return api.post("/api/v1/workloads", json=body, headers=headers or {})


def problem(response: Any, status: int) -> Any:
    """The problem document. That of a route must be announced by its documentation."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body, kind = response.json(), KINDS[status]
    assert (body["type"], body["title"], body["status"]) == (kind.uri, kind.title, status)
    assert body["instance"] == response.request.url.path
    assert body["detail"] and "Traceback" not in response.text
    path = re.sub(r"/workloads/[^/]+", "/workloads/{workload_id}", body["instance"])
    if status not in (400, 405) and path != "/nowhere":  # 400 is the guard's, before there is a route
        assert status in statuses(path, response.request.method.lower()), f"{path} may be answered with {status}"
    return body


def fields(body: Any) -> list[str]:
    """Where the problems are."""
    return [each["field"] for each in body["problems"]]
