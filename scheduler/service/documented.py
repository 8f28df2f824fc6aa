"""What the OpenAPI document says of every route, whoever wrote it: that it needs a token, and how it may be refused."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .guard import OPEN_PATHS, PROBLEM_TYPE

Json = dict[str, Any]
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
_OF_FORM = {
    "400": "The request has no form that is answered: nested too deep, a wrong length",
    "414": "The URL is too long",
    "421": "The Host header names another service",
    "431": "The headers are too many or too long",
    "500": "The service failed",
}
_OF_GUARDED = {
    "401": "There is no valid bearer token",
    "403": "The token's role is too small",
    "404": "There is nothing of this name",
    "409": "It is not in a state for this",
    "422": "The request is refused; `problems` says why, field by field",
    "429": "Too many requests; `Retry-After` says when to come back",
    "503": "The Ray cluster cannot be reached",
    "507": "The store cannot be written",
}
_OF_BODY = {
    "408": "The body was not there in time",
    "413": "The body is too large",
    "415": "The body is of another type",
}
PROBLEM: Json = {
    "type": "object",
    "title": "Problem",
    "description": "An RFC 9457 problem detail.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["message", "field", "hint", "file"],
                "properties": {name: {"type": "string"} for name in ("message", "field", "hint", "file")},
            },
        },
    },
}


def document(app: FastAPI) -> None:
    """Complete the app's OpenAPI document, however it is made, when it is first asked for."""
    make, done = app.openapi, False

    def openapi() -> Json:
        nonlocal done
        made = make()
        if not done:
            completed(made)  # in place: the app keeps it
            done = True
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def completed(made: Json) -> None:
    """The document with the guard in it. What a route says of itself stays, but FastAPI's own form of a 422, which is
    never sent."""
    components = made.setdefault("components", {})
    components.setdefault("schemas", {}).setdefault("Problem", PROBLEM)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, entry in made["paths"].items():
        for method in entry.keys() & _METHODS:
            _complete(entry[method], path not in OPEN_PATHS)
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)


def _complete(operation: Json, guarded: bool) -> None:
    if guarded:
        operation["security"] = [{"token": []}]
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    wanted = _OF_FORM | (_OF_GUARDED if guarded else {}) | (_OF_BODY if "requestBody" in operation else {})
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, description in wanted.items():
        responses.setdefault(status, {"description": description, "content": content})
