"""The client over HTTP."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

Json = dict[str, Any]
JsonList = list[Json]
Ids = list[str]
TIMEOUT = httpx.Timeout(120.0, connect=5.0)  # a first plan imports torch and builds the model


class ClientError(Exception):
    """The service answered with an error; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NoService(ClientError):
    """No service runs from this home, or it does not answer."""


class Refused(ClientError):
    """The submission is refused; `problems` says what is wrong, each with file, field and hint."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        self.problems = problems
        super().__init__("\n".join(_line(problem) for problem in problems), status=422)


class Client:
    """Speaks to the service of a home folder (`$RAYWISE_HOME`, or `~/.raywise`), or to the one at `url`."""

    def __init__(self, url: str | None = None, token: str | None = None, home: str | Path | None = None) -> None:
        folder = Path(home or os.environ.get("RAYWISE_HOME") or "~/.raywise").expanduser()
        url = url or os.environ.get("RAYWISE_URL") or _read(folder / "service.json", "url")
        token = token or os.environ.get("RAYWISE_TOKEN") or _read(folder / "token")
        if not url or not token:
            raise NoService(f"no service runs from {folder}; start one with `raywise up --detach`")
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, spec: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Json:
        """Submit a YAML file (or a spec as a mapping). Returns `id` and the workloads. Raises Refused."""
        return self._json("POST", "/api/v1/workloads", json=_body(spec, overrides))

    def plan(self, spec: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Json:
        """What would be chosen on the idle cluster. Raises Refused."""
        return self._json("POST", "/api/v1/plan", json=_body(spec, overrides))

    def list(self, state: str | None = None, limit: int = 100) -> JsonList:
        """Workloads, oldest first, at most the newest `limit`."""
        params = {"limit": str(limit)} | ({"state": state} if state else {})
        return cast(JsonList, self._json("GET", "/api/v1/workloads", params=params)["workloads"])

    def show(self, workload_id: str) -> Json:
        """A workload, or all workloads of a pipeline."""
        return self._json("GET", f"/api/v1/workloads/{workload_id}")

    def events(self, workload_id: str, after: int = 0) -> JsonList:
        """What happened to it, oldest first."""
        answer = self._json("GET", f"/api/v1/workloads/{workload_id}/events", params={"after": str(after)})
        return cast(JsonList, answer["events"])

    def logs(self, workload_id: str) -> str:
        """All it printed so far."""
        return self._call("GET", f"/api/v1/workloads/{workload_id}/logs").text

    def cancel(self, workload_id: str) -> Ids:
        """End it; returns the ids that were still going."""
        return cast(Ids, self._json("POST", f"/api/v1/workloads/{workload_id}/cancel")["cancelled"])

    def explain(self, workload_id: str) -> Json:
        """Why it runs where it does, or why it waits."""
        return self._json("GET", f"/api/v1/workloads/{workload_id}/explain")

    def devices(self) -> Json:
        """Device types, nodes and congestion prices."""
        return self._json("GET", "/api/v1/devices")

    def calibration(self) -> Json:
        """What was learnt and measured: corrections with intervals, start-up seconds, rates of device types."""
        return self._json("GET", "/api/v1/calibration")

    def reset_calibration(self) -> Json:
        """Forget all of it; returns how much there was."""
        return self._json("DELETE", "/api/v1/calibration")

    def tokens(self) -> JsonList:
        """All tokens, oldest first, without their secrets. For administrators."""
        return cast(JsonList, self._json("GET", "/api/v1/tokens")["tokens"])

    def create_token(self, user: str, role: str, expires: str | None = None, note: str = "") -> Json:
        """A new token (`token`: its text, told once) for a user: `admin`, `submitter` or `viewer`. `expires` is a
        duration, such as `30d`. For administrators. Raises Refused."""
        body = {"user": user, "role": role, "expires": expires, "note": note}
        return self._json("POST", "/api/v1/tokens", json=body)

    def revoke_token(self, token_id: str) -> Json:
        """Close a token for good. For administrators."""
        return self._json("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}")

    def rotate_admin_token(self) -> str:
        """The administrator's new token, which is also in the service's home folder; the one before opens nothing any
        more."""
        return str(self._json("POST", "/api/v1/tokens/admin/rotate")["token"])

    def healthy(self) -> bool:
        """Whether the service answers."""
        try:
            return bool(self._json("GET", "/api/v1/health"))
        except ClientError:
            return False

    def wait(
        self,
        workload_id: str,
        timeout_s: float | None = None,
        on_update: Callable[[Json], None] | None = None,
        interval_s: float = 1.0,
    ) -> Json:
        """Wait until everything has ended; returns what `show` returns. Raises TimeoutError."""
        start = time.monotonic()
        while True:
            view = self.show(workload_id)
            if on_update is not None:
                on_update(view)
            if all(workload["ended"] for workload in view["workloads"]):
                return view
            if timeout_s is not None and time.monotonic() - start > timeout_s:
                raise TimeoutError(f"{workload_id} has not ended after {timeout_s:g} s")
            time.sleep(interval_s)

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        return cast(Json, self._call(method, path, **arguments).json())

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise NoService(f"the service at {self._http.base_url} does not answer: {error}") from error
        if response.is_error:
            raise _error(response)
        return response


def _error(response: httpx.Response) -> ClientError:
    try:
        body = response.json()
    except ValueError:
        return ClientError(f"HTTP {response.status_code}: {response.text[:200]}", response.status_code)
    problems = body.get("problems")
    return Refused(problems) if problems else ClientError(str(body.get("title")), response.status_code)


def _body(spec: str | Path | Mapping[str, Any], overrides: Iterable[str]) -> Json:
    """The request for a spec: a file's text with its folder, or a mapping as JSON (which is YAML)."""
    changes = [_seen_from_here(override) for override in overrides]
    if isinstance(spec, Mapping):
        return {"text": json.dumps(dict(spec)), "base": str(Path.cwd()), "file": "", "overrides": changes}
    path = Path(spec)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message, hint = f"not UTF-8 text (byte {error.start})", "not YAML?"
        raise Refused([{"message": message, "file": str(path), "field": "", "hint": hint}]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise Refused([{"message": message, "file": str(path), "field": "", "hint": ""}]) from None
    return {"text": text, "base": str(path.resolve().parent), "file": str(path), "overrides": changes}


def _seen_from_here(override: str) -> str:
    """`key=path` with the path made absolute, seen from the current folder, where it is written as one (with a `/`, or
    a `.` or `~` first) and exists. The same rule as `workloads.loading.seen_from_here`."""
    key, _, value = override.partition("=")
    if "://" in value or not ("/" in value or value.startswith((".", "~"))):
        return override
    try:
        path = Path(value).expanduser()
        return f"{key}={path.resolve()}" if path.exists() else override
    except (OSError, ValueError, RuntimeError):  # too long for a path, a NUL byte, an unknown ~user
        return override


def _line(problem: Mapping[str, str]) -> str:
    where = ": ".join(part for part in (problem.get("file"), problem.get("field")) if part)
    line = f"{where}: {problem['message']}" if where else problem["message"]
    return f"{line}\n  hint: {problem['hint']}" if problem.get("hint") else line


def _read(path: Path, key: str | None = None) -> str | None:
    try:
        text = path.read_text()
        return text.strip() if key is None else str(json.loads(text)[key])
    except (OSError, ValueError, KeyError):
        return None
