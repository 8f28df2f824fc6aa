"""The OpenAPI document: the routes as FastAPI finds them, with every error as a problem document, and examples."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from ...client import types
from .problems import KINDS, PROBLEM_TYPE

EXAMPLES = Path(__file__).with_name("examples.json")
OPEN = ("/api/v1/health", "/api/v1/ready")
DESCRIPTION = """Scheduling of machine-learning workloads on a mixed Ray cluster. Seconds (`_s`), bytes and dollars
(`_usd`) carry their unit in the name; times are Unix seconds, days are UTC. Every error is a problem document
(RFC 9457)."""
_ONE = "/workloads/{workload_id}"
_MORE = {
    "POST /workloads": (503,),
    "POST /plan": (503,),
    f"GET {_ONE}": (404,),
    f"PATCH {_ONE}": (404, 409, 503),
    f"GET {_ONE}/explain": (404,),
    f"GET {_ONE}/events": (404,),
    f"GET {_ONE}/logs": (404, 503),
    f"POST {_ONE}/cancel": (404,),
    f"POST {_ONE}/pause": (404, 409),
    f"POST {_ONE}/resume": (404, 409),
    "GET /events/stream": (404, 503),
    "GET /devices": (503,),
    "GET /nodes": (503,),
    "GET /snapshot": (404,),
    "GET /usage": (404,),
    "GET /calibration": (503,),
    "DELETE /tokens/{token_id}": (404,),
}
"""Beside those that every route has."""


def document(app: FastAPI) -> None:
    """Make the app's document ours. It is made when it is first asked for."""
    plain = app.openapi

    def documented() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = documented  # type: ignore[method-assign]


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    found["info"]["description"] = " ".join(DESCRIPTION.split())
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas |= _problem_schemas()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = operation["operationId"].partition("_api_v1")[0].partition("_metrics")[0]
            operation["security"] = [] if path in OPEN else [{"token": []}]
            _add_errors(operation, path, method)
            _add_examples(operation, f"{method.upper()} {path}")
    return found


def _problem_schemas() -> dict[str, Any]:
    schema = TypeAdapter(types.ProblemView).json_schema(ref_template="#/components/schemas/{model}")
    inner: dict[str, Any] = schema.pop("$defs")
    schema["required"] = ["type", "title", "status", "detail"]
    return {"ProblemView": schema, **inner}


def statuses(path: str, method: str) -> list[int]:
    """The errors that a route may be answered with."""
    if path in OPEN:
        return [500]
    name = f"{method.upper()} {path.removeprefix('/api/v1')}"
    changes = () if method == "get" else (413, 507)
    return sorted({401, 403, 422, 429, 500, *changes, *_MORE.get(name, ())})


def _add_errors(operation: dict[str, Any], path: str, method: str) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status in statuses(path, method):
        responses[str(status)] = error_response(status, path)


def error_response(status: int, path: str) -> dict[str, Any]:
    """How an error is described."""
    kind = KINDS[status]
    example = {"type": kind.uri, "title": kind.title, "status": status, "detail": kind.meaning, "instance": path}
    content = {"schema": {"$ref": "#/components/schemas/ProblemView"}, "example": example}
    return {"description": kind.meaning, "content": {PROBLEM_TYPE: content}}


def _add_examples(operation: dict[str, Any], name: str) -> None:
    example = examples().get(name)
    if example is None:
        return
    if "request" in example:
        operation["requestBody"]["content"]["application/json"]["example"] = example["request"]
    good = next(response for status, response in operation["responses"].items() if status.startswith("2"))
    good["content"] = {example["type"]: {**good.get("content", {}).get(example["type"], {}), "example": example["is"]}}


@cache
def examples() -> dict[str, Any]:
    """By method and path: what is sent (`request`), and what comes back (`is`), of which media type."""
    return dict(json.loads(EXAMPLES.read_text(encoding="utf-8")))
