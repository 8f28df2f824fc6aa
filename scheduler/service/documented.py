"""What the guard adds to the OpenAPI document of the routes: that they need a token, and how it refuses."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from .api.openapi import error_response
from .guard import OPEN_PATHS

Json = dict[str, Any]
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
_OF_FORM = (400, 414, 421, 431, 500)
_OF_GUARDED = (401, 403, 429)
_OF_BODY = (408, 413, 415)


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
    """The document with the guard in it. What a route says of itself stays."""
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, entry in made["paths"].items():
        for method in entry.keys() & _METHODS:
            _complete(entry[method], path)


def _complete(operation: Json, path: str) -> None:
    guarded = path not in OPEN_PATHS
    operation["security"] = [{"token": []}] if guarded else []
    wanted = {*_OF_FORM, *(_OF_GUARDED if guarded else ()), *(_OF_BODY if "requestBody" in operation else ())}
    found = operation["responses"]
    for status in wanted:
        found.setdefault(str(status), error_response(status, path))
    operation["responses"] = {status: found[status] for status in sorted(found)}
