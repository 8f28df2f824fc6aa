"""Users' tokens as they are stored: who, with which role, until when; of the secret only a hash."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa

from . import schema
from .records import Event
from .store import Store

_table = schema.tokens


@dataclass(frozen=True)
class Token:
    """One token. Times are Unix seconds."""

    id: str
    """The part of the token that is no secret."""
    hash: str
    """SHA-256 of the whole token, in hexadecimal."""
    user: str
    role: str
    note: str
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def is_valid(self, now_s: float) -> bool:
        """Whether it opens anything now."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


class TokenTable:
    """The tokens of a store. None is ever deleted: the log's events name them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Token]:
        """Every token there ever was, oldest first. Raises StoreError."""
        columns = [_table.c[each.name] for each in fields(Token)]
        with self._store.database.reading() as db:
            rows = db.execute(sa.select(*columns).order_by(_table.c.created_s, _table.c.id)).all()
        return [Token(*row) for row in rows]

    def add(self, token: Token, event: Event) -> None:
        """Store a new one. Raises StoreError where its id is taken."""
        self._store.change_table(_table.insert().values(asdict(token)), event)

    def revoke(self, token_id: str, at_s: float, event: Event) -> None:
        """From now on it opens nothing; one that was revoked stays as it is. Raises StoreError."""
        open_ = sa.and_(_table.c.id == token_id, _table.c.revoked_s.is_(None))
        self._store.change_table(_table.update().where(open_).values(revoked_s=at_s), event)
