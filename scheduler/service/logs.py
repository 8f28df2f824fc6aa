"""The service's log: readable text or JSON lines, each with the cycle and the workload it is about, none with a secret.

What is known to be secret (tokens, the store's password) is told to `Secrets`; what looks like one (a bearer token, a
password in a URL, a mapping of environment variables) is hidden whoever wrote it: Ray's errors repeat what they were
given.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from workloads.errors import Problem, SpecError

from ..log_context import current

HIDDEN = "***"
MIN_SECRET_CHARS = 6
"""Shorter texts are not hidden wherever they stand: the log would be unreadable."""
FIELDS = "raywise_fields"
"""The attribute of a log record that carries further fields: `extra={FIELDS: {"status": 200}}`."""
QUIET = ("httpx", "httpx2", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio")
"""Loggers that tell of each request or connection: heard from `warning` on."""

_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@'\"]*):[^\s@/'\"]+@"), rf"\1:{HIDDEN}@"),
    (
        re.compile(
            r"(?i)((?:[A-Za-z0-9]+[_-])*(?:token|password|passwd|secret|api[_-]?key|access[_-]?key|signature)"
            r"(?:[_-][A-Za-z0-9]+)*['\"]?\s*[=:]\s*['\"]?)([^\s'\"&,;)}\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
)
_ENV = re.compile(r"\b(?:env_vars|env|environ|environment)['\"]?\s*[:=]\s*(?=\{)")


@dataclass(frozen=True)
class LogOptions:
    """What is logged, how, and where to: a file is made for its owner only; None is standard error."""

    level: str = "info"
    format: str = "text"
    file: Path | None = None


class Secrets:
    """What must not get into the log."""

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def add(self, *texts: str | None) -> None:
        """Hide these from now on, wherever they stand."""
        new = {form for text in texts if text for form in (text, quote(text, safe="")) if len(text) >= MIN_SECRET_CHARS}
        with self._lock:
            self._known = tuple(sorted({*self._known, *new}, key=len, reverse=True))

    def add_url(self, url: str | None) -> None:
        """Hide the password of a URL."""
        if url and "://" in url:
            self.add(urlsplit(url).password)

    def hide(self, text: str) -> str:
        """The text without anything secret."""
        for secret in self._known:
            text = text.replace(secret, HIDDEN)
        text = without_environments(text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


SECRETS = Secrets()
"""Those of this process."""


def without_environments(text: str) -> str:
    """The text with `{***}` for each mapping of environment variables that is printed in it, such as a run's
    `runtime_env`."""
    parts, end = [], 0
    while match := _ENV.search(text, end):
        parts += [text[end : match.end()], "{", HIDDEN, "}"]
        end = _closing(text, match.end())
    return "".join([*parts, text[end:]])


def _closing(text: str, start: int) -> int:
    """Just behind the brace that closes the one at `start`; the end of the text where none does."""
    depth, quoted, place = 0, "", start
    while place < len(text):
        letter = text[place]
        if quoted:
            place += letter == "\\"
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        else:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0:
                return place + 1
        place += 1
    return len(text)


class TextFormatter(logging.Formatter):
    """One readable line: time, level, logger, message, then what is known beside it as `name=value`."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        """The line without its traceback."""
        line = super().formatMessage(record).replace("\r", "\\r")
        beside = " ".join(f"{name}={value}" for name, value in _beside(record).items())
        return f"{line} {beside}" if beside else line

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry."""
        return self._secrets.hide(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at`, `level`, `logger`, `message`, `cycle`, `workload_id`, further fields,
    `exception`."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The whole entry."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, Any] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_beside(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps({name: self._hidden(value) for name, value in entry.items()}, default=str)

    def _hidden(self, value: Any) -> Any:
        """Hidden before it becomes JSON: the quotes that JSON escapes would hide a secret's own shape."""
        return self._secrets.hide(value) if isinstance(value, str) else value


def _beside(record: logging.LogRecord) -> Mapping[str, Any]:
    return {**current(), **getattr(record, FIELDS, {})}


def configure(options: LogOptions, secrets: Secrets = SECRETS) -> logging.Handler:
    """Let all of this process's log go where it should, in place of what was there. Raises SpecError where the file
    cannot be written."""
    handler = _handler(options)
    formatter = JsonFormatter(secrets) if options.format == "json" else TextFormatter(secrets)
    formatter.converter = time.localtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for known in list(root.handlers):
        root.removeHandler(known)
    root.addHandler(handler)
    root.setLevel(options.level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    return handler


def _handler(options: LogOptions) -> logging.Handler:
    if options.file is None:
        return logging.StreamHandler()
    try:
        options.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        options.file.touch(mode=0o600)
        return WatchedFileHandler(options.file, encoding="utf-8")  # follows what logrotate does
    except OSError as error:
        raise SpecError(Problem(f"{options.file} cannot be written: {error.strerror}", "log.file")) from None
