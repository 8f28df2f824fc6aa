"""Who may speak: users' tokens with their roles, and the administrator's own token of the home folder.

Only a hash of a token is stored; with 256 random bits a plain SHA-256 is enough. What is stored is kept in memory as
well: one service writes, so nobody else changes it, and what is revoked is closed with the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from workloads.errors import RaywiseError

from ..store import Event, Store, Token, TokenTable
from .token_text import ADMIN, id_of, new_id, new_token

ROLES = ("viewer", "submitter", ADMIN)
"""Each may do what those before it may."""
USER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
LAST_USE_GRAIN_S = 60.0
"""When a token was used last is known to the minute, since the service began."""
_SETTING = "token-sha256"


@dataclass(frozen=True)
class User:
    """Who speaks, as routes see it in `request.state.user`."""

    name: str
    role: str
    token_id: str = ""

    def may(self, role: str) -> bool:
        """Whether what needs this role is allowed."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Grant:
    """A user whom a token opened the door; `digest` is the hash of that token."""

    user: User
    digest: str


class Denied(RaywiseError):
    """The token opens nothing: there is none, it is unknown, revoked or expired."""


class Tokens:
    """All tokens of a service. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        """Raises StoreError."""
        self._store, self._table, self._clock = store, TokenTable(store), clock
        self._known = {token.id: token for token in self._table.all()}
        admin = store.setting(_SETTING)
        if admin is not None:
            self._known[ADMIN] = _of_admin(admin)
        self._used_s: dict[str, float] = {}

    def check(self, header: str | None) -> Grant:
        """Who an `Authorization` header is from. Raises Denied."""
        scheme, _, text = (header or "").partition(" ")
        token = text.strip()
        digest = _hash(token)
        known = self._known.get(id_of(token)) or self._known.get(ADMIN)
        if scheme.lower() != "bearer" or known is None or not hmac.compare_digest(digest, known.hash):
            raise Denied("a valid bearer token is needed")
        if known.revoked_s is not None:
            raise Denied("this token has been revoked")
        if not known.is_valid(self._clock()):
            raise Denied("this token has expired")
        self._used_s[known.id] = self._clock() // LAST_USE_GRAIN_S * LAST_USE_GRAIN_S
        return Grant(User(known.user, known.role, known.id), digest)

    def is_valid(self, grant: Grant) -> bool:
        """Whether a token that was good once still is."""
        known = self._known.get(grant.user.token_id)
        return known is not None and known.is_valid(self._clock()) and hmac.compare_digest(known.hash, grant.digest)

    def all(self) -> list[Token]:
        """Every token, also those that open nothing any more; without the administrator's own."""
        return sorted((t for t in self._known.values() if t.id != ADMIN), key=lambda token: (token.created_s, token.id))

    def last_used_s(self, token_id: str) -> float | None:
        """The minute of its last use since the service began; None where there was none."""
        return self._used_s.get(token_id)

    def create(
        self, user: str, role: str, by: User, *, note: str = "", lasts_s: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and its text, which nobody can tell again. Raises ValueError, StoreError."""
        if role not in ROLES or not re.fullmatch(USER_PATTERN, user):
            raise ValueError(f"no such role, or no name of a user: {role!r}, {user!r}")
        if user == ADMIN and role != ADMIN:
            raise ValueError(f"{ADMIN!r} is the administrator's name")
        token_id = new_id()
        while token_id in self._known:
            token_id = new_id()
        text, now_s = new_token(token_id), self._clock()
        expires_s = None if lasts_s is None else now_s + lasts_s
        token = Token(token_id, _hash(text), user, role, note, now_s, expires_s)
        self._table.add(token, self._event("token-created", f"{by.name} made it for {user}", token))
        self._known[token_id] = token
        return token, text

    def revoke(self, token_id: str, by: User) -> Token | None:
        """Close a token for good; None where there is none of this id. Raises StoreError."""
        token = None if token_id == ADMIN else self._known.get(token_id)
        if token is None or token.revoked_s is not None:
            return token
        revoked = replace(token, revoked_s=self._clock())
        self._table.revoke(token_id, self._clock(), self._event("token-revoked", f"{by.name} revoked it", revoked))
        self._known[token_id] = revoked
        return revoked

    def rotate_admin(self, text: str, by: User) -> None:
        """From now on this is the administrator's token, and the one before opens nothing. Raises StoreError."""
        token = _of_admin(_hash(text))
        self._store.append(self._event("token-rotated", f"{by.name} asked for it", token))
        remember(self._store, text)
        self._known[ADMIN] = token

    def _event(self, kind: str, cause: str, token: Token) -> Event:
        data = {"token": token.id, "user": token.user, "role": token.role, "expires_s": token.expires_s}
        return Event(kind, cause, at_s=self._clock(), data=data)


def remember(store: Store, token: str) -> None:
    """Keep the hash of the administrator's token."""
    store.set_setting(_SETTING, _hash(token))


def _of_admin(digest: str) -> Token:
    return Token(ADMIN, digest, ADMIN, ADMIN, "the token in the home folder", 0.0)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
