"""Asks a running service how it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from ..client import verification

DEADLINE_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What it said; None is not known."""

    health_error: str | None = None
    ready_reasons: tuple[str, ...] | None = None
    last_cycle_age_s: float | None = None


def ask_service(url: str, token: str | None, clock: Callable[[], float]) -> Answer:
    """Its health, whether it is ready, and how old its last cycle is. A service without `/api/v1/ready` says the last
    by the situation that it dumps."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, timeout=DEADLINE_S, verify=verification(), trust_env=False) as client:
            client.get("/api/v1/health").raise_for_status()
            reply = client.get("/api/v1/ready", headers=headers)
            if reply.status_code in (200, 503):
                return _said(reply)
            return Answer(last_cycle_age_s=_age_s(client, headers, clock))
    except (httpx.HTTPError, ValueError) as error:
        return Answer(health_error=str(error) or type(error).__name__)


def _said(reply: httpx.Response) -> Answer:
    """Reasons stand in `reasons`; without any, the status is what is known."""
    body: Any = reply.json()
    reasons = body.get("reasons") if isinstance(body, dict) else None
    known = tuple(str(each) for each in reasons) if isinstance(reasons, list) else ()
    if reply.status_code == 503 and not known:
        known = (str(body.get("title") or "it does not say why") if isinstance(body, dict) else "it does not say why",)
    age_s = body.get("last_cycle_age_s") if isinstance(body, dict) else None
    return Answer(ready_reasons=known, last_cycle_age_s=float(age_s) if isinstance(age_s, int | float) else None)


def _age_s(client: httpx.Client, headers: dict[str, str], clock: Callable[[], float]) -> float | None:
    reply = client.get("/api/v1/snapshot", headers=headers)
    try:
        return max(0.0, clock() - float(reply.json()["now_s"])) if reply.status_code == 200 else None
    except (ValueError, KeyError, TypeError):
        return None
