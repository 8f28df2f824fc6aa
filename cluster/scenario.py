"""How the nodes that a local cluster rents behave: a script that stands in for a cloud's moods. It is read anew all the
time, so that a type may come to be had, or not to be had any more, while the cluster runs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads.errors import Problem, SpecError

log = logging.getLogger(__name__)


class Behaviour(BaseModel):
    """What becomes of nodes of one type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boot_s: float | None = Field(default=None, ge=0, le=3600)
    """From the launch until Ray is started on it; where not given, the type's `launch_s`."""
    capacity: int | None = Field(default=None, ge=0)
    """So many can be had at once; the launch of more is refused."""
    refuse: Annotated[int, Field(ge=0)] | bool = 0
    """So many launches are refused first; `true` refuses all."""
    never_joins: bool = False
    """The machine is there and is paid for, but Ray never starts on it."""
    interrupt_after_s: float | None = Field(default=None, gt=0)
    """Each is taken back so long after it was launched."""
    notice_s: float = Field(default=30.0, ge=0, le=3600)
    """How long before that is said."""
    resources: Mapping[str, float] = {}
    """What it joins with in place of what was promised."""


class Scenario(BaseModel):
    """Behaviour by node type; a type that is not named behaves well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: Mapping[str, Behaviour] = {}

    @classmethod
    def load(cls, path: Path) -> Scenario:
        """Read a script. Raises SpecError."""
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpecError(Problem(f"cannot be read: {error}", file=str(path))) from error
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError([_problem(dict(each), str(path)) for each in error.errors()]) from error

    def check(self, rented: Collection[str], path: Path) -> None:
        """Raises SpecError where it names a type that is not rented."""
        for name in self.types:
            if name not in rented:
                hint = f"types that are rented: {', '.join(rented) or 'none'}"
                raise SpecError(Problem(f"{name} is no type that is rented", f"types.{name}", hint, str(path)))

    def of(self, node_type: str) -> Behaviour:
        """How nodes of a type behave."""
        return self.types.get(node_type, Behaviour())


class Script:
    """A scenario that may be changed while it is played: what cannot be read is told once, and what held before goes
    on."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_at, self._scenario = path, 0, Scenario()

    def now(self) -> Scenario:
        """As it was last written; one where nothing happens where nothing ever was."""
        try:
            written_at = self._path.stat().st_mtime_ns
        except OSError:
            return self._scenario
        if written_at != self._read_at:
            self._read_at = written_at
            try:
                self._scenario = Scenario.load(self._path)
            except SpecError as error:
                log.error("the scenario stays as it was: %s", error)
        return self._scenario


def _problem(error: dict[str, Any], file: str) -> Problem:
    field = ".".join(str(part) for part in error["loc"])
    hint = f"fields are {', '.join(Behaviour.model_fields)}" if error["type"] == "extra_forbidden" else ""
    return Problem(str(error["msg"]), field=field, hint=hint, file=file)
