"""`/api/v1/tokens`: the administrator makes, lists and revokes tokens. A secret is told once, in the answer that made
it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from workloads.errors import Problem, SpecError
from workloads.quantities import Duration

from ..store import Token
from . import auth
from .home import Home
from .token_text import ADMIN, new_token

NOTE_CHARS = 200


class TokenRequest(BaseModel):
    """Whom a new token is for. `expires`: so long from now, such as `30d`; null: never."""

    model_config = ConfigDict(extra="forbid")
    user: str = Field(pattern=auth.USER_PATTERN)
    role: Literal["admin", "submitter", "viewer"]
    expires: Annotated[Duration | None, Field(json_schema_extra={"examples": ["30d"]})] = None
    note: str = Field("", max_length=NOTE_CHARS)


class TokenView(BaseModel):
    """A token without its secret. Times are Unix seconds; the last use is known to the minute, since the service
    began."""

    id: str
    user: str
    role: str
    note: str
    created_s: float
    expires_s: float | None
    revoked_s: float | None
    last_used_s: float | None


class NewToken(TokenView):
    """A token with its secret."""

    token: str


class TokenList(BaseModel):
    """All tokens, oldest first, also those that open nothing any more."""

    tokens: list[TokenView]


class AdminToken(BaseModel):
    """The administrator's new token."""

    token: str


def router(tokens: auth.Tokens, home: Home) -> APIRouter:
    """The routes. `home`: the folder whose token file is the administrator's."""
    routes = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])

    @routes.get("")
    def list_tokens(request: Request) -> TokenList:
        _admin(request)
        return TokenList(tokens=[TokenView(**_view(tokens, token)) for token in tokens.all()])

    @routes.post("", status_code=201)
    def create_token(request: Request, wanted: TokenRequest) -> NewToken:
        by = _admin(request)
        if wanted.user == ADMIN and wanted.role != ADMIN:
            problem = Problem(f"{ADMIN!r} is the administrator's name", "user", "choose another name")
            raise SpecError(problem)
        if "\x00" in wanted.note:
            raise SpecError(Problem("a text has no NUL character", "note"))
        token, text = tokens.create(wanted.user, wanted.role, by, note=wanted.note, lasts_s=wanted.expires)
        return NewToken(**_view(tokens, token), token=text)

    @routes.delete("/{token_id}")
    def revoke_token(request: Request, token_id: str) -> TokenView:
        token = tokens.revoke(token_id, _admin(request))
        if token is None:
            hint = "; it can be rotated" if token_id == ADMIN else ""
            raise HTTPException(404, f"there is no token {token_id!r} to revoke{hint}")
        return TokenView(**_view(tokens, token))

    @routes.post("/admin/rotate")
    def rotate_admin(request: Request) -> AdminToken:
        by, text = _admin(request), new_token(ADMIN)
        home.write_token(text)  # first: after a crash between the two, the file is what the next start remembers
        tokens.rotate_admin(text, by)
        return AdminToken(token=text)

    return routes


def _admin(request: Request) -> auth.User:
    """Who asks, an administrator. Raises HTTPException."""
    user = request.state.user
    if not isinstance(user, auth.User) or not user.may(ADMIN):
        raise HTTPException(403, f"this needs the role {ADMIN}")
    return user


def _view(tokens: auth.Tokens, token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "role": token.role,
        "note": token.note,
        "created_s": token.created_s,
        "expires_s": token.expires_s,
        "revoked_s": token.revoked_s,
        "last_used_s": tokens.last_used_s(token.id),
    }
