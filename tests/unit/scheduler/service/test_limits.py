"""Who asks too much from one address waits; others, and probes, do not."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from scheduler.service import limits
from scheduler.service.limits import Buckets, Limited, RateLimit


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def answer(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_burst_then_so_many_a_second() -> None:
    clock = Clock()
    buckets = Buckets(RateLimit(2.0, 3), clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    assert buckets.take("b") == 0, "another address"
    clock.now_s += 0.25
    assert buckets.take("a") == pytest.approx(0.25), "who asks in vain does not wait longer"
    clock.now_s += 0.25
    assert [buckets.take("a"), buckets.take("a")] == [0, pytest.approx(0.5)]
    clock.now_s += 1000
    assert [bool(buckets.take("a")) for _ in range(4)] == [False, False, False, True], (
        "no more than a burst is saved up"
    )


def test_of_many_addresses_the_quiet_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 2)
    buckets = Buckets(RateLimit(1.0, 1), Clock())
    for address in ("a", "b", "a", "c"):
        buckets.take(address)
    assert list(buckets._left) == ["a", "c"]


def test_who_is_above_it_is_told_when_to_come_back() -> None:
    clock = Clock()
    client = TestClient(Limited(answer, Buckets(RateLimit(0.4, 1), clock)))  # type: ignore[arg-type]
    assert client.get("/api/v1/workloads").status_code == 200
    refused = client.get("/api/v1/workloads")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "too many requests from this address"
    assert client.get("/api/v1/health").status_code == client.get("/api/v1/ready").status_code == 200
    clock.now_s += 2.5
    assert client.get("/api/v1/workloads").status_code == 200
