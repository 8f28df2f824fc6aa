"""The OpenAPI document and its page: every route with its errors and an example that is true."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from scheduler.client import Client
from scheduler.service.api import openapi
from scheduler.service.api.changing import ChangeRequest
from scheduler.service.api.openapi import examples
from scheduler.service.api.problems import KINDS
from scheduler.service.api.submitting import SubmitRequest
from scheduler.service.tokens_api import TokenRequest
from workloads.spec import WorkloadBase

DOCS = Path(__file__).resolve().parents[3] / "docs"


def make_api() -> Any:
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(make_api().application().openapi())


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_page_is_the_one_that_is_made(document: dict[str, Any]) -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == make_api().page(document), "run `make docs`"


def test_the_service_shows_the_same_document(api: TestClient, document: dict[str, Any]) -> None:
    assert api.get("/api/v1/openapi.json").json() == json.loads(json.dumps(document))
    assert document["openapi"].startswith("3.1")


def test_every_route_has_words_an_example_and_its_errors(operations: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names) == 27
    assert set(examples()) == set(operations)
    for name, operation in operations.items():
        assert operation["description"].strip(), name
        assert all(each.get("description") for each in operation.get("parameters", [])), name
        for status in (status for status in operation["responses"] if int(status) >= 400):
            if (name, status) == ("GET /api/v1/ready", "503"):
                continue  # it says why, in its own words
            ((kind, content),) = operation["responses"][status]["content"].items()
            assert kind == "application/problem+json", (name, status)
            assert content["example"]["type"] == KINDS[int(status)].uri
            assert content["schema"] == {"$ref": "#/components/schemas/ProblemView"}
        if "requestBody" in operation:
            assert "example" in operation["requestBody"]["content"]["application/json"], name


def test_every_reference_is_there(document: dict[str, Any]) -> None:
    wanted = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert wanted == set(document["components"]["schemas"])


def test_examples_are_of_the_types_that_are_promised(api: TestClient) -> None:
    models = {"POST /api/v1/workloads": SubmitRequest, "POST /api/v1/plan": SubmitRequest}
    models["POST /api/v1/tokens"] = TokenRequest
    checked = 0
    for route in _routes(api.app.routes):  # type: ignore[attr-defined]
        for method in route.methods or ():
            example = examples().get(f"{method} {route.path}", {})
            if is_typeddict(route.response_model):
                TypeAdapter(route.response_model).validate_python(example["is"], strict=True, extra="forbid")
                checked += 1
            if "request" in example:
                models.get(f"{method} {route.path}", ChangeRequest).model_validate(example["request"])
    assert checked == 23


def _routes(routes: Any) -> list[APIRoute]:
    found = []
    for route in routes:
        if isinstance(route, APIRoute):
            found.append(route)
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        found += _routes(inner) if inner else []
    return found


def test_what_can_be_changed_is_in_the_document() -> None:
    fields = set(ChangeRequest.model_fields)
    assert fields <= set(WorkloadBase.model_fields)
    schema = ChangeRequest.model_json_schema()["properties"]
    assert schema["objective"]["enum"] == ["cost", "balanced", "time"]


def test_the_page_of_the_client_names_every_method() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")}
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)\(", text)) - {"Client"} == public


def test_a_document_without_examples_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "examples", dict)
    operation: dict[str, Any] = {"responses": {"200": {}}}
    openapi._add_examples(operation, "GET /x")
    assert operation == {"responses": {"200": {}}}
