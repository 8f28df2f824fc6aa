"""`/api/v1/tokens`: the administrator makes, lists and revokes tokens. A secret is told once, in the answer that made
it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from workloads.errors import Problem, SpecError
from workloads.quantities import Duration

from ..client import types
from ..store import Token
from . import auth
from .api.problems import ProblemError
from .home import Home
from .logs import SECRETS
from .token_text import ADMIN, new_token
from .users import CurrentUser, needs

NOTE_CHARS = 200


class TokenRequest(BaseModel):
    """Whom a new token is for. `expires`: so long from now, such as `30d`; null: never."""

    model_config = ConfigDict(extra="forbid")
    user: str = Field(pattern=auth.USER_PATTERN)
    role: Literal["admin", "submitter", "viewer"]
    expires: Annotated[Duration | None, Field(json_schema_extra={"examples": ["30d"]})] = None
    note: str = Field("", max_length=NOTE_CHARS)


def router(tokens: auth.Tokens, home: Home) -> APIRouter:
    """The routes. `home`: the folder whose token file is the administrator's."""
    routes = APIRouter(prefix="/api/v1/tokens", tags=["tokens"], dependencies=[needs("admin")])

    @routes.get("")
    def list_tokens() -> types.TokenList:
        """All tokens but the administrator's own, oldest first, without their secrets; also those that open nothing any
        more."""
        return {"tokens": [_view(tokens, token) for token in tokens.all()]}

    @routes.post("", status_code=201)
    def create_token(wanted: TokenRequest, by: CurrentUser) -> types.NewToken:
        """Make a token for a user. Its secret, `token`, is told in this answer only."""
        if wanted.user == ADMIN and wanted.role != ADMIN:
            problem = Problem(f"{ADMIN!r} is the administrator's name", "user", "choose another name")
            raise SpecError(problem)
        if "\x00" in wanted.note:
            raise SpecError(Problem("a text has no NUL character", "note"))
        token, text = tokens.create(wanted.user, wanted.role, by, note=wanted.note, lasts_s=wanted.expires)
        return {**_view(tokens, token), "token": text}

    @routes.delete("/{token_id}")
    def revoke_token(
        token_id: Annotated[str, Path(description="As in the list of tokens")], by: CurrentUser
    ) -> types.TokenView:
        """Close a token for good; streams that are open with it end."""
        token = tokens.revoke(token_id, by)
        if token is None:
            hint = "; it can be rotated" if token_id == ADMIN else ""
            raise ProblemError(404, f"there is no token {token_id!r} to revoke{hint}")
        return _view(tokens, token)

    @routes.post("/admin/rotate")
    def rotate_admin(by: CurrentUser) -> types.AdminToken:
        """Replace the administrator's own token, also in the service's home folder."""
        text = new_token(ADMIN)
        SECRETS.add(text)
        home.write_token(text)  # first: after a crash between the two, the file is what the next start remembers
        tokens.rotate_admin(text, by)
        return {"token": text}

    return routes


def _view(tokens: auth.Tokens, token: Token) -> types.TokenView:
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
