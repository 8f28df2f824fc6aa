"""Who asks, and what they may do. Viewers read; submitters submit, and change what is theirs; administrators do
everything. The guard lets a request in, and says who it is from (`request.state.user`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from ..store import Record
from .api.problems import ProblemError
from .auth import ROLES, User

Role = Literal["admin", "submitter", "viewer"]


def current_user(request: Request) -> User:
    """Who asks. Raises ProblemError where the guard has not said it: a request that came past it is nobody's."""
    found = getattr(request.state, "user", None)
    if not isinstance(found, User):
        raise ProblemError(401, "nobody knows who this request is from")
    return found


CurrentUser = Annotated[User, Depends(current_user)]


def needs(role: Role) -> Any:
    """A dependency that lets nobody in with less than this role."""

    def check(user: CurrentUser) -> None:
        if not user.may(role):
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
