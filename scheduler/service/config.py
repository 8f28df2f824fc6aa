"""The service as an operator writes it down: `service.yaml`, for `raywise serve --config`. Documented in
docs/service.md.

First in the service's start: a file becomes `ServiceConfig`, and this the `ServiceOptions` that `serve` runs.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.catalog import Catalog
from cluster.definition import ClusterDefinition, QueueDefinition
from workloads.errors import Problem, SpecError
from workloads.loading import yaml_value
from workloads.refusals import nearest, not_a_file, problem_of

from ..policy import names
from ..store.database import is_url

DEFAULT_DASHBOARD_PORT = 8265
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenConfig(_Model):
    """Where the API is. `insecure` allows plain HTTP beyond this machine; `url` is what clients are told."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    insecure: bool = False
    url: str | None = Field(default=None, pattern=r"^https?://[^/\s?#@]+$")


class TlsConfig(_Model):
    """A certificate with its chain, and its private key, both PEM files."""

    cert: str
    key: str


class ClusterConfig(_Model):
    """The Ray cluster: `definition` is started on this machine, or one runs already at `address`, and `definition` says
    what may be rented there."""

    definition: str | None = None
    address: str | None = Field(default=None, pattern=r"^[^:/\s]+:\d{1,5}$")
    dashboard_url: str | None = Field(default=None, pattern=r"^https?://[^\s?#@]+$")
    token_file: str | None = None
    stop_with_service: bool = False


class LogConfig(_Model):
    """What is logged, how, and where to; without a file it goes to standard error."""

    level: LogLevel = "info"
    format: LogFormat = "text"
    file: str | None = None


class RateLimitConfig(_Model):
    """What one token may ask in the long run, and at once."""

    requests_per_s: float = Field(default=50.0, gt=0, le=100_000)
    burst: int = Field(default=200, ge=1, le=1_000_000)


class ServiceConfig(_Model):
    """One service. Paths are as they are written; `resolve` makes them absolute."""

    home: str | None = None
    runs: str | None = None
    listen: ListenConfig = ListenConfig()
    tls: TlsConfig | None = None
    store: str | None = None
    store_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    store_file: str | None = None
    cluster: ClusterConfig = ClusterConfig()
    queues: tuple[QueueDefinition, ...] = ()
    policy: str = "market"
    catalog: str | None = None
    cycle_s: float = Field(default=1.0, ge=0.1, le=60)
    log: LogConfig = LogConfig()
    rate_limit: RateLimitConfig | None = None

    @classmethod
    def load(cls, path: Path) -> ServiceConfig:
        """Read a `service.yaml`, with its paths made absolute. Nothing it names is opened but the catalog. Raises
        SpecError with every problem found."""
        if problem := not_a_file(path):
            raise SpecError(problem)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise SpecError(Problem(f"cannot be read: {reason}", file=str(path))) from None
        data = yaml_value(text, str(path))
        return cls.parse({} if data is None else data, base=path.resolve().parent, file=str(path))

    @classmethod
    def parse(cls, data: Any, *, base: Path, file: str = "") -> ServiceConfig:
        """Check a configuration whose relative paths are seen from `base`. Raises SpecError."""
        if not isinstance(data, dict):
            raise SpecError(Problem("expected a mapping of fields", file=file, hint=f"fields: {', '.join(_FIELDS)}"))
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            raise SpecError([_problem(dict(each), data, file) for each in error.errors()]) from None
        config = config.resolve(base)
        problems = _check(config, file)
        if problems:
            raise SpecError(problems)
        return config.model_copy(update={"queues": _checked_queues(data, config, file)})

    def resolve(self, base: Path) -> ServiceConfig:
        """The same with absolute paths."""

        def seen(value: str | None) -> str | None:
            return None if value is None else str((base / Path(value).expanduser()).resolve())

        tls = None if self.tls is None else TlsConfig(cert=seen(self.tls.cert) or "", key=seen(self.tls.key) or "")
        cluster = {name: seen(getattr(self.cluster, name)) for name in ("definition", "token_file")}
        return self.model_copy(
            update={
                **{name: seen(getattr(self, name)) for name in ("home", "runs", "catalog", "store_file")},
                "store": self.store if self.store is None or is_url(self.store) else seen(self.store),
                "tls": tls,
                "cluster": self.cluster.model_copy(update=cluster),
                "log": self.log.model_copy(update={"file": seen(self.log.file)}),
            }
        )

    @property
    def dashboard_url(self) -> str | None:
        """Ray's dashboard; None for a cluster that is started here."""
        if self.cluster.address is None or self.cluster.dashboard_url is not None:
            return self.cluster.dashboard_url
        return f"http://{self.cluster.address.rpartition(':')[0]}:{DEFAULT_DASHBOARD_PORT}"

    def read_store(self, environ: Mapping[str, str] = os.environ, file: str = "") -> str | None:
        """Path or URL of the store, from where it is written; None is the home's own file. Raises SpecError."""
        if self.store_env is not None:
            value = environ.get(self.store_env, "").strip()
            if not value:
                hint = "set it in the environment of the service"
                raise SpecError(Problem(f"the variable {self.store_env} is not set", "store_env", hint, file))
            return value
        if self.store_file is None:
            return self.store
        try:
            value = Path(self.store_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(Problem(f"{self.store_file} cannot be read: {error}", "store_file", file=file)) from None
        if not value:
            raise SpecError(Problem(f"{self.store_file} is empty", "store_file", "write the URL into it", file))
        return value


_FIELDS = tuple(ServiceConfig.model_fields)
_NESTED: dict[str, type[BaseModel]] = {"queues": QueueDefinition}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(config: ServiceConfig, file: str) -> list[Problem]:
    found = [*_check_listen(config), *_check_store(config), *_check_cluster(config.cluster)]
    if config.policy not in names():
        message = f"unknown policy {config.policy!r}"
        found.append(Problem(message, "policy", nearest(config.policy, names())))
    return [Problem(each.message, each.field, each.hint, file) for each in found]


def _check_listen(config: ServiceConfig) -> list[Problem]:
    listen, problems = config.listen, []
    if not is_loopback(listen.host) and config.tls is None and not listen.insecure:
        message = f"{listen.host} is reached from other machines: tokens would go over the network in the clear"
        hint = "give `tls`, listen on 127.0.0.1, or write `insecure: true` behind a proxy that has TLS"
        problems.append(Problem(message, "listen.host", hint))
    try:
        if listen.host != "localhost":
            ipaddress.ip_address(listen.host)
    except ValueError:
        hint = "write an address of this machine, e.g. 127.0.0.1, ::1 or 0.0.0.0"
        problems.append(Problem(f"{listen.host!r} is no IP address", "listen.host", hint))
    return problems


def _check_store(config: ServiceConfig) -> list[Problem]:
    given = [name for name in ("store", "store_env", "store_file") if getattr(config, name) is not None]
    problems = []
    if len(given) > 1:
        problems.append(Problem(f"{', '.join(given)} exclude each other", given[1], "keep one of them"))
    if config.store is None or not is_url(config.store):
        return problems
    parts = urlsplit(config.store)
    if parts.scheme not in ("postgresql", "postgres"):
        problems.append(
            Problem(f"unknown kind of store {parts.scheme!r}", "store", "write a path, or postgresql://...")
        )
    if parts.password or "password=" in parts.query:
        hint = "put the URL into a variable or a file, and name it in `store_env` or `store_file`"
        problems.append(Problem("a password stands in the file", "store", hint))
    return problems


def _check_cluster(cluster: ClusterConfig) -> list[Problem]:
    if cluster.address is not None:
        wrong = ["stop_with_service"] if cluster.stop_with_service else []
        message, hint = "is for a cluster that is started here", "leave it out, or leave out `address`"
    else:
        wrong = [name for name in ("dashboard_url", "token_file") if getattr(cluster, name) is not None]
        message, hint = "is for a cluster that runs already", "give its `address`, HOST:PORT"
    return [Problem(message, f"cluster.{name}", hint) for name in wrong]


def _checked_queues(data: Mapping[str, Any], config: ServiceConfig, file: str) -> tuple[QueueDefinition, ...]:
    """The queues with the catalog's own device names; their rules are those of a cluster definition. Raises
    SpecError."""
    if not config.queues:
        return ()
    catalog = Catalog.load(None if config.catalog is None else Path(config.catalog))
    return ClusterDefinition.parse({"queues": data["queues"]}, catalog, file=file).queues


def _problem(error: dict[str, Any], data: dict[str, Any], file: str) -> Problem:
    location = error["loc"]
    if location[0] in _NESTED and error["type"] == "extra_forbidden":
        hint = nearest(str(location[-1]), _NESTED[str(location[0])].model_fields)
        field = ".".join(str(part) for part in location)
        return Problem(f"unknown field {location[-1]!r}", field, hint, file)
    problem = problem_of(ServiceConfig, {}, data, error, file)
    if error["type"] != "string_pattern_mismatch":
        return problem
    shape = _SHAPES.get(str(location[-1]))
    # What was written is not repeated: somebody's password may stand where it should not.
    return problem if shape is None else Problem("is not of the right form", problem.field, shape, file)


_SHAPES = {
    "address": "write HOST:PORT, e.g. 10.0.0.5:6379",
    "dashboard_url": "write http://HOST:PORT, e.g. http://10.0.0.5:8265",
    "url": "write https://HOST:PORT, without a path",
    "store_env": "write the name of an environment variable, e.g. RAYWISE_STORE",
}
