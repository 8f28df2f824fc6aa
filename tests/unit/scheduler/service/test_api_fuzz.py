"""Every operation of the OpenAPI document, asked with made-up requests, right ones and wrong ones: nothing fails (5xx),
and every answer has a status, a type and a form that the document names. Whatever route comes later is covered."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import given, seed, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from fake_service import FakeRuntime
from scheduler.service.app import create_app
from scheduler.service.guard import OPEN_PATHS, Limits
from workloads.loading import load_text

EXAMPLES = 20
"""Of each operation; the seed is fixed."""
CHECKS = (
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
)
ENDLESS = "text/event-stream"
"""An answer of this type has no end that could be waited for: such operations have tests of their own."""
SPEC = "kind: command\nname: hello\ncommand: echo\nresources: {devices: cpu}\nexpected_runtime: 10s\n"


class Service:
    """A service with a workload in it, and the requests that are made up for it."""

    def __init__(self, folder: Path) -> None:
        self.runtime = FakeRuntime(folder)
        self.app = create_app(self.runtime, Limits(burst=1_000_000, failures_burst=1_000_000))
        (record,) = self.runtime.submit(load_text(SPEC, base=folder))
        self.known = record.id
        self.runtime.cycle()
        self.runtime.pulse.ended()

    def headers(self) -> dict[str, str]:
        """The administrator's: read again each time, since one of the operations replaces the token."""
        return {"authorization": f"Bearer {self.runtime.home.read_token()}", "host": "127.0.0.1"}

    def ask(self, case: Any, number: int) -> None:
        """One request; every second one is about what is there."""
        if number % 2 and "workload_id" in (case.path_parameters or {}):
            case.path_parameters["workload_id"] = self.known
        if "follow" in (case.query or {}):
            case.query["follow"] = False
        case.call_and_validate(headers=self.headers(), checks=CHECKS, timeout=60)


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "home")
    yield made
    made.runtime.store.close()


def operations(service: Service) -> list[Any]:
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", service.app, headers=service.headers())
    return [result.ok() for result in schema.get_all_operations()]


def _streams(operation: Any) -> bool:
    return ENDLESS in str(operation.definition.raw.get("responses", {}).get("200", {}))


def test_every_operation_is_asked_but_those_without_end(fuzzed: Service) -> None:
    asked = [each for each in operations(fuzzed) if not _streams(each)]
    assert len(asked) >= 17
    for operation in asked:
        _ask_all(fuzzed, operation, GenerationMode.POSITIVE)
        if operation.body or operation.query or operation.path_parameters:
            _ask_all(fuzzed, operation, GenerationMode.NEGATIVE)


def _ask_all(service: Service, operation: Any, mode: GenerationMode) -> None:
    number = 0

    @seed(zlib.crc32(operation.label.encode()))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal number
        number += 1
        service.ask(case, number)

    ask()
    assert number, operation.label


def test_the_document_says_who_may_ask_and_how_it_may_be_refused(fuzzed: Service) -> None:
    document = fuzzed.app.openapi()
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, entry in document["paths"].items():
        for operation in entry.values():
            statuses = set(operation["responses"])
            assert ("401" in statuses) is (path not in OPEN_PATHS)
            assert bool(operation.get("security")) is (path not in OPEN_PATHS)
            assert "413" in statuses or "requestBody" not in operation
            assert "HTTPValidationError" not in str(operation)
