"""What both clients do alike: find the service, decide whether to ask again, read a stream of events."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from . import types
from ._calls import Call
from ._errors import ClientError, NoService

TIMEOUT = httpx.Timeout(120.0, connect=5.0)  # a first plan imports torch and builds the model
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Of a stream that says nothing for longer, not even a heartbeat, the connection is gone."""
LOG_TIMEOUT = httpx.Timeout(None, connect=5.0)  # a workload may print nothing for hours
RETRY_DELAYS_S = (0.2, 0.6)
"""A connection that breaks is tried again after each of these."""
PATIENCE_S = 60.0
"""A stream, or waiting for an end, is taken up again for so long: the service may be about to start anew."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""Between two questions to a service that does not answer: each pause is twice the one before."""
AWAY = (502, 503, 504)
"""What a service that is about to end answers, or a proxy before one that is not there."""
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True)
class Service:
    """Where it is, and the token that it knows."""

    url: str
    token: str

    @property
    def options(self) -> dict[str, Any]:
        """For httpx."""
        headers = {"authorization": f"Bearer {self.token}"}
        kept = {"base_url": self.url, "headers": headers, "timeout": TIMEOUT, "trust_env": False}
        return kept | {"verify": verification()}


def service_of(url: str | None, token: str | None, home: str | Path | None) -> Service:
    """The service at `url`, or the one that runs from a home folder (`$RAYWISE_HOME`, or `~/.raywise`). Raises
    NoService."""
    folder = Path(home or os.environ.get("RAYWISE_HOME") or "~/.raywise").expanduser()
    url = url or os.environ.get("RAYWISE_URL") or _read(folder / "service.json", "url")
    token = token or os.environ.get("RAYWISE_TOKEN") or _read(folder / "token")
    if not url or not token:
        raise NoService(f"no service runs from {folder}; start one with `raywise up --detach`")
    return Service(url, token)


def find_again(
    http: httpx.Client | httpx.AsyncClient, url: str | None, token: str | None, home: str | Path | None
) -> None:
    """Follow a service that was started anew at another port; nothing where none runs just now."""
    with suppress(NoService):
        found = service_of(url, token, home)
        http.base_url = httpx.URL(found.url)
        http.headers["authorization"] = f"Bearer {found.token}"


def verification() -> ssl.SSLContext | bool:
    """Whose certificates are believed: those of the file in `$RAYWISE_CA` (PEM), or the public ones. Raises
    ClientError where the file cannot be used."""
    path = os.environ.get("RAYWISE_CA")
    if not path:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ClientError(f"RAYWISE_CA names no file of certificates: {path}: {error}") from None


def delay_s(call: Call[Any], error: httpx.HTTPError, tries: int) -> float | None:
    """Seconds until a broken call is tried again; None where it is not: another try might do it twice, or enough were
    made."""
    safe = isinstance(error, _BROKEN) if call.repeatable else isinstance(error, _NEVER_SENT)
    return RETRY_DELAYS_S[tries] if safe and tries < len(RETRY_DELAYS_S) else None


def unanswered(url: object, error: Exception) -> NoService:
    """What is raised then."""
    return NoService(f"the service at {url} does not answer: {error}")


class Patience:
    """With a service that has answered before, and does not for a while."""

    def __init__(self, heard: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        """`heard`: whether it has answered at all."""
        self._known, self._clock = heard, clock
        self._since_s: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def heard(self) -> None:
        """It has answered."""
        self._known, self._since_s, self._pause_s = True, None, FIRST_PAUSE_S

    def pause_s(self, error: ClientError) -> float:
        """Seconds until it is asked again. Raises the error where it never answered, is another, or goes on for more
        than `PATIENCE_S`."""
        now_s = self._clock()
        self._since_s = now_s if self._since_s is None else self._since_s
        is_away = isinstance(error, NoService) or error.status in AWAY
        if not (self._known and is_away) or now_s - self._since_s > PATIENCE_S:
            raise error
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return pause_s


def ended(view: types.Shown) -> bool:
    """Whether everything of it has."""
    return all(workload["ended"] for workload in view["workloads"])


def log_ended(view: types.Shown, is_more: bool) -> bool:
    """Whether all of a log has come, after a stream of it that ended; `is_more`: it had something. The stream of a
    service that was about to end may have been cut: only one that has nothing says that there is no more. Raises
    ClientError for a pipeline that goes on."""
    if not ended(view):
        require_one(view)
    return ended(view) and (not is_more or _is_pipeline(view))


def require_one(view: types.Shown) -> None:
    """Raises ClientError for a pipeline, whose log cannot be taken up where it was: those of its workloads are mixed
    anew each time."""
    if _is_pipeline(view):
        raise ClientError(f"the connection broke; follow one of the workloads of {view['id']}")


def _is_pipeline(view: types.Shown) -> bool:
    return view["workloads"][0]["id"] != view["id"]


@dataclass
class EventReader:
    """Reads the lines of a stream of events, and knows where a new one goes on."""

    last_id: str | None = None
    retry_s: float = 2.0
    _data: list[str] = field(default_factory=list)

    def read(self, line: str) -> types.EventView | None:
        """The event that this line ends, or None."""
        if not line:
            text, self._data = "\n".join(self._data), []
            return cast(types.EventView, json.loads(text)) if text else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self.last_id = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def begin(self) -> Mapping[str, str]:
        """The headers of the next connection. What was half read comes again."""
        self._data = []
        return {} if self.last_id is None else {"Last-Event-ID": self.last_id}


def _read(path: Path, key: str | None = None) -> str | None:
    try:
        text = path.read_text()
        return text.strip() if key is None else str(json.loads(text)[key])
    except (OSError, ValueError, KeyError):
        return None
