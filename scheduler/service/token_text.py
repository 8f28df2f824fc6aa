"""How a token is written: `rw_<id>_<secret>`, a prefix that scanners of secrets can know, an id that may be shown, and
256 random bits."""

from __future__ import annotations

import secrets

PREFIX = "rw"
ADMIN = "admin"
"""The administrator's name, role and token id."""
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_ID_CHARS = 8
_SECRET_BYTES = 32


def new_id() -> str:
    """A new token's id."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARS))


def new_token(token_id: str) -> str:
    """A new token with this id."""
    return f"{PREFIX}_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def id_of(token: str) -> str:
    """The id within a token; empty where it has none, as an administrator's of a time before there were ids."""
    prefix, _, rest = token.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""
