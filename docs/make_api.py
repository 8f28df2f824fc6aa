"""Writes docs/api.md from the OpenAPI document of the service: every route with its parameters, an example and its
errors. `make docs` runs it; a test fails where the file is another."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from fastapi import FastAPI  # noqa: E402

from scheduler.service.api import openapi  # noqa: E402
from scheduler.service.api.problems import KINDS  # noqa: E402

HEAD = """# The REST API

Everything is below `/api/v1` of the service (`raywise up` says its URL; `service.json` in its home has it). Every route
but `health` and `ready` needs `Authorization: Bearer TOKEN`. The OpenAPI 3.1 document is `/api/v1/openapi.json`; this
page is made from it (`make docs`). Seconds (`_s`), bytes and dollars (`_usd`) carry their unit in the name, times are
Unix seconds, days are UTC. An id may be cut short, as long as only one workload or pipeline starts so; a pipeline's
routes act on all of its steps. Viewers may read; submitters submit, and change what is theirs; administrators do
everything. For Python there is a client: [python.md](python.md).

- Pages of workloads go into the past: `next_cursor` of one is the `cursor` of the next. Pages of events go on with
  `after=next_after`.
- A submission with an `Idempotency-Key` is accepted once: sent again with the same body it is answered with 200 and
  what it became, with another body it is refused. Keys are kept as long as the workloads are.
- A change is checked by the models of the spec. A `deadline` is that long from the moment of the change on, a
  `budget_usd` is for all attempts together. What holds a number of devices that `resources.count` no longer has is
  placed anew: training, batch inference and commands over many items go on where they were, what would begin again runs
  to its end where it is. A larger budget lets go on what was paused since its budget was spent; `resume` does not.
- `pause` takes the devices away after a checkpoint. What runs and could not go on where it was would begin again from
  its start: that needs `restart=true`.
- Streams (`events/stream`, logs with `follow=true`) end when the service does; `Last-Event-ID`, or `offset`, goes on.

## Errors

Every error is a problem document (RFC 9457, `application/problem+json`): `type`, `title`, `status`, `detail` (what
happened this time), `instance` (the path) and, where something that was sent is wrong, `problems`: for each the
`message`, the `field` (`steps.train.retries` of a spec, `query.limit`, `header.Last-Event-ID`, `body.text`), a `hint`
and the `file`.

| status | type | meaning |
| --- | --- | --- |
"""


def main() -> None:
    """Write the page."""
    (HERE / "api.md").write_text(page(application().openapi()), encoding="utf-8")


def application() -> FastAPI:
    """The API without a service behind it: enough to be described."""
    from typing import cast

    from scheduler.service.app import create_app
    from scheduler.service.runtime import Runtime
    from scheduler.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "raywise.db")
        try:
            return create_app(cast(Runtime, SimpleNamespace(store=store, home=None)))
        finally:
            store.close()


def page(document: dict[str, Any]) -> str:
    """The whole text."""
    errors = "".join(f"| {status} | `{kind.uri}` | {kind.meaning} |\n" for status, kind in KINDS.items())
    routes = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    order = {
        tag: number for number, tag in enumerate(("workloads", "events", "cluster", "calibration", "tokens", "service"))
    }
    routes.sort(key=lambda route: order[route[1]["tags"][-1]])
    return HEAD + errors + "".join(_route(name, operation) for name, operation in routes)


def _route(name: str, operation: dict[str, Any]) -> str:
    text = f"\n## {name}\n\n{' '.join(operation['description'].split())}\n"
    parameters = [_parameter(each) for each in operation.get("parameters", [])]
    if parameters:
        text += "\n| parameter | in | type | meaning |\n| --- | --- | --- | --- |\n" + "".join(parameters)
    example = openapi.examples().get(name, {})
    if "request" in example:
        text += f"\nSent:\n\n```json\n{_json(example['request'])}\n```\n"
    good = ", ".join(status for status in operation["responses"] if status.startswith("2"))
    if "is" in example:
        kind = {"application/json": "json"}.get(example["type"], "text")
        body = _json(example["is"]) if kind == "json" else example["is"].rstrip("\n")
        text += f"\nAnswer ({good}, `{example['type']}`):\n\n```{kind}\n{body}\n```\n"
    bad = ", ".join(status for status in operation["responses"] if not status.startswith("2"))
    return f"{text}\nErrors: {bad}.\n"


def _parameter(each: dict[str, Any]) -> str:
    schema = each["schema"]
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    kind = " or ".join(f"`{value}`" for value in options[0].get("enum", [])) or options[0].get("type", "")
    default = f", default `{json.dumps(schema['default'])}`" if schema.get("default") is not None else ""
    required = ", required" if each.get("required") else ""
    return f"| `{each['name']}` | {each['in']} | {kind}{default}{required} | {each.get('description', '')} |\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
