"""Who asks, and what they may do. Viewers read; submitters submit, and change what is theirs; administrators do
everything. Whoever lets a request in says who it is from (`request.state.user`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from ..store import Record
from .api.problems import ProblemError

Role = Literal["admin", "submitter", "viewer"]
ROLES: tuple[Role, ...] = ("viewer", "submitter", "admin")
"""Each may do what those before it may."""


@dataclass(frozen=True)
class User:
    """Somebody with a token."""

    name: str
    role: Role


ADMINISTRATOR = User("admin", "admin")
"""Who a request is from where nobody says it: there is one token then, the administrator's."""


def current_user(request: Request) -> User:
    """Who asks."""
    found = getattr(request.state, "user", None)
    return ADMINISTRATOR if found is None else User(found.name, found.role)


CurrentUser = Annotated[User, Depends(current_user)]


def needs(role: Role) -> Any:
    """A dependency that lets nobody in with less than this role."""

    def check(user: CurrentUser) -> None:
        if ROLES.index(user.role) < ROLES.index(role):
            raise ProblemError(403, f"{user.name} is a {user.role}: this is for {_those_from(role)}")

    return Depends(check)


def must_own(user: User, records: list[Record]) -> None:
    """Raise where one of these is somebody else's, unless an administrator asks."""
    if user.role == "admin":
        return
    others = sorted({record.owner for record in records if record.owner != user.name})
    if others:
        raise ProblemError(403, f"{records[0].pipeline_id or records[0].id} belongs to {', '.join(others)}")


def _those_from(role: Role) -> str:
    return " and ".join(f"{each}s" for each in ROLES[ROLES.index(role) :])
