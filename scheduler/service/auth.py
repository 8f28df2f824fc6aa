"""Bearer tokens: kept as a hash, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

from ..store import Store

_SETTING = "token-sha256"


def remember(store: Store, token: str) -> None:
    """Keep the hash of the administrator's token; the token has 256 random bits, so a plain hash is enough."""
    store.set_setting(_SETTING, _hash(token))


def allowed(store: Store, header: str | None) -> bool:
    """Whether an `Authorization` header carries the token."""
    scheme, _, token = (header or "").partition(" ")
    known = store.setting(_SETTING)
    return scheme.lower() == "bearer" and known is not None and hmac.compare_digest(_hash(token.strip()), known)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
