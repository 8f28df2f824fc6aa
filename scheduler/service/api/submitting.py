"""Submitting, and planning without submitting."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from workloads.errors import Problem, SpecError
from workloads.loading import Submission, apply_overrides, is_url, load_data, load_text
from workloads.yaml_values import MAX_YAML_BYTES

from ...client import types
from ...store import Record, StoreError, StoreUnclearError
from .. import views
from ..auth import User
from ..runtime import Runtime
from ..users import CurrentUser, needs
from . import showing
from .finding import find
from .problems import ProblemError

_NOWHERE = Path("/")
_REPLAYED: dict[str, Any] = {"model": types.Submitted, "description": "It was accepted before, under the same key"}
_PATHS = ("input", "output", "code")
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="The same key with the same body is accepted once; asked again, it is answered with 200.",
    ),
]


class SubmitRequest(BaseModel):
    """A spec as YAML text, or as JSON; the folder its relative paths are seen from, and `--set` overrides."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = Field(default=None, description="The spec as YAML text")
    spec: dict[str, Any] | None = Field(default=None, description="The spec as JSON, in place of `text`")
    base: str | None = Field(
        default=None, description="Absolute folder that relative paths are seen from; a spec without any needs none"
    )
    file: str = Field(default="", description="What the file is called in messages")
    overrides: list[str] = Field(default=[], description="`key=value`, as with `--set`")


def router(runtime: Runtime) -> APIRouter:
    """The routes over a runtime."""
    routes = APIRouter(prefix="/api/v1", tags=["workloads"])

    @routes.post("/workloads", status_code=201, dependencies=[needs("submitter")], responses={200: _REPLAYED})
    def submit(request: SubmitRequest, user: CurrentUser, response: Response, key: Key = None) -> types.Submitted:
        """Submit a workload or a pipeline: it is checked, stored and queued, or refused whole."""
        digest = _digest(request)
        known = None if key is None else _accepted(runtime, user, key, digest)
        if known is None:
            submission = _submission(request)
            try:
                records = runtime.submit(submission, user.name, None if key is None else (key, digest))
                return _answer(runtime, records)
            except StoreUnclearError:
                raise
            except StoreError:  # another request with this key may have come first
                known = None if key is None else _accepted(runtime, user, key, digest)
                if known is None:
                    raise
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"
        return _answer(runtime, known)

    @routes.post("/plan", dependencies=[needs("submitter")])
    def plan(request: SubmitRequest) -> types.PlanView:
        """What each step would run on if the cluster were idle, how long and for how much. Nothing is stored."""
        submission = _submission(request)
        return views.plan(submission, runtime.policy.name, runtime.plan(submission))

    return routes


def _answer(runtime: Runtime, records: list[Record]) -> types.Submitted:
    return {"id": records[0].pipeline_id or records[0].id, "workloads": showing.short(runtime, records)}


def _digest(request: SubmitRequest) -> str:
    return hashlib.sha256(json.dumps(request.model_dump(), sort_keys=True).encode()).hexdigest()


def _accepted(runtime: Runtime, user: User, key: str, digest: str) -> list[Record] | None:
    """What this key of the user's became before. Raises ProblemError where it was another submission."""
    found = runtime.store.accepted(user.name, key)
    if found is None:
        return None
    before, accepted_id = found
    if before != digest:
        problem = Problem("is the key of another submission", "header.Idempotency-Key", "give each submission its own")
        raise ProblemError(422, f"the key {key!r} was used for {accepted_id}, with another body", [problem])
    return find(runtime.store, accepted_id).records


def _submission(request: SubmitRequest) -> Submission:
    """Raises SpecError."""
    if (request.text is None) == (request.spec is None):
        raise SpecError(Problem("exactly one of text and spec is needed", "body", "text is YAML, spec is JSON"))
    if request.base is not None and not Path(request.base).is_absolute():
        raise SpecError(Problem("must be an absolute path", "body.base"))
    if request.text is not None:
        if request.base is None:
            raise SpecError(Problem("is required", "body.base", "the folder of the file: paths in it are seen from it"))
        return load_text(request.text, base=Path(request.base), file=request.file, overrides=request.overrides)
    return _from_json(request.spec or {}, request)


def _from_json(spec: dict[str, Any], request: SubmitRequest) -> Submission:
    if len(json.dumps(spec)) > MAX_YAML_BYTES:
        raise SpecError(Problem(f"a spec has at most {MAX_YAML_BYTES:,} characters", "body.spec"))
    apply_overrides(spec, request.overrides, request.file)
    if request.base is not None:
        return load_data(spec, base=Path(request.base), file=request.file)
    problems = [
        Problem("is a relative path", field, "make it absolute, or give base: the folder it is seen from", request.file)
        for field in _relative(spec)
    ]
    if problems:
        raise SpecError(problems)
    return load_data(spec, base=_NOWHERE, file=request.file)


def _relative(spec: dict[str, Any]) -> list[str]:
    """Fields whose paths are seen from a folder that nobody named."""
    steps = spec.get("steps")
    if not isinstance(steps, list):
        return _relative_in(spec, "")
    return [
        field
        for step in steps
        if isinstance(step, dict)
        for field in _relative_in(step, f"steps.{step.get('name', '?')}.")
    ]


def _relative_in(step: dict[str, Any], prefix: str) -> list[str]:
    written = [(field, path) for field in _PATHS for path in _paths(step.get(field))]
    found = [field for field, path in written if not is_url(path) and not path.startswith(("/", "~", "${"))]
    model = step.get("model")
    if isinstance(model, str) and model.startswith("."):
        found.append("model")
    if step.get("entrypoint") and step.get("code") is None:
        found.append("code")
    return [prefix + field for field in found]


def _paths(value: Any) -> list[str]:
    each = value.values() if isinstance(value, dict) else [value]
    return [path for path in each if isinstance(path, str)]
