"""Tokens: made, used, listed, revoked; what is stored of them, and what the log tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fake_service import FakeRuntime
from postgres_server import running
from scheduler.service import auth
from scheduler.service.app import create_app
from scheduler.service.logs import SECRETS
from scheduler.store import Store

BY = auth.User("admin", "admin", "admin")
TOKENS = "/api/v1/tokens"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "raywise.db")
    yield opened
    opened.close()


def opens(tokens: auth.Tokens, secret: str) -> bool:
    try:
        tokens.check(f"Bearer {secret}")
    except auth.Denied:
        return False
    return True


def test_a_token_has_an_id_that_may_be_shown_and_a_secret_that_is_not_stored(store: Store, tmp_path: Path) -> None:
    token, secret = auth.Tokens(store).create("ann", "submitter", BY, note="laptop")
    assert re.fullmatch(rf"rw_{token.id}_[\w-]{{43}}", secret)
    store.close()
    for path in tmp_path.iterdir():
        assert secret.rpartition("_")[2].encode() not in path.read_bytes()


def test_what_is_made_and_revoked_stays_so_after_a_restart(store: Store, clock: Clock) -> None:
    tokens = auth.Tokens(store, clock)
    (one, first), (_, second) = tokens.create("ann", "viewer", BY), tokens.create("bob", "submitter", BY)
    assert opens(tokens, first) and opens(tokens, second)
    revoked = tokens.revoke(one.id, BY)
    assert revoked is not None and revoked.revoked_s == clock.now_s
    clock.now_s += 10
    again = auth.Tokens(store, clock)
    for each in (tokens, again):
        assert (opens(each, first), opens(each, second)) == (False, True)
    assert again.all() == tokens.all()
    assert again.revoke(one.id, BY) == revoked, "revoked once"
    assert [event.kind for event in store.events()] == ["token-created", "token-created", "token-revoked"]


def test_postgresql_holds_them_too(clock: Clock) -> None:
    with running() as server:
        store = Store(server.url("tokens"))
        tokens = auth.Tokens(store, clock)
        token, secret = tokens.create("ann", "viewer", BY, lasts_s=60.0, note="é")
        tokens.revoke(token.id, BY)
        assert auth.Tokens(store, clock).all() == tokens.all()
        assert not opens(auth.Tokens(store, clock), secret)
        store.close()


def test_a_token_ends_by_itself(store: Store, clock: Clock) -> None:
    tokens = auth.Tokens(store, clock)
    token, secret = tokens.create("ann", "viewer", BY, lasts_s=60.0)
    grant = tokens.check(f"Bearer {secret}")
    clock.now_s += 59
    assert tokens.is_valid(grant)
    clock.now_s += 1
    assert not tokens.is_valid(grant)
    with pytest.raises(auth.Denied, match="this token has expired"):
        tokens.check(f"Bearer {secret}")
    with pytest.raises(auth.Denied, match="a valid bearer token is needed"):
        tokens.check(f"Bearer rw_{token.id}_wrong")


def test_the_last_use_is_known_to_the_minute(store: Store, clock: Clock) -> None:
    tokens = auth.Tokens(store, clock)
    token, secret = tokens.create("ann", "viewer", BY)
    assert tokens.last_used_s(token.id) is None
    assert opens(tokens, secret)
    assert tokens.last_used_s(token.id) == clock.now_s // 60 * 60


def test_the_log_tells_who_made_a_token_for_whom_and_no_secret(store: Store) -> None:
    token, secret = auth.Tokens(store).create("ann", "viewer", BY)
    (event,) = store.events()
    assert event.cause == "admin made it for ann"
    assert event.data == {"token": token.id, "user": "ann", "role": "viewer", "expires_s": None}
    assert secret.rpartition("_")[2] not in json.dumps(event.data) + event.cause


@pytest.mark.parametrize(
    ("user", "role"), [("", "viewer"), ("a b", "viewer"), ("a\n", "viewer"), ("ann", "root"), ("admin", "viewer")]
)
def test_no_such_user_or_role(store: Store, user: str, role: str) -> None:
    with pytest.raises(ValueError):
        auth.Tokens(store).create(user, role, BY)
    assert store.events() == []


def created(api: TestClient, **fields: Any) -> Any:
    response = api.post(TOKENS, json={"user": "ann", "role": "submitter", **fields})
    assert response.status_code == 201, response.text
    return response.json()


def as_(api: TestClient, secret: str) -> TestClient:
    client = TestClient(api.app)
    client.headers["authorization"] = f"Bearer {secret}"
    return client


def test_over_the_api(api: TestClient, runtime: FakeRuntime) -> None:
    made = created(api, expires="30d", note="laptop")
    assert made["expires_s"] - made["created_s"] == pytest.approx(30 * 86400)
    ann = as_(api, made["token"])
    assert ann.get("/api/v1/workloads").status_code == 200
    (listed,) = api.get(TOKENS).json()["tokens"]
    assert listed | {"last_used_s": None} == {key: value for key, value in made.items() if key != "token"}
    assert listed["last_used_s"] is not None
    assert made["token"] not in api.get(TOKENS).text
    assert api.delete(f"{TOKENS}/{made['id']}").json()["revoked_s"] is not None
    answer = ann.get("/api/v1/workloads")
    assert (answer.status_code, answer.json()["detail"]) == (401, "this token has been revoked")
    assert opens(auth.Tokens(runtime.store), runtime.token)


@pytest.mark.parametrize("role", ["viewer", "submitter"])
def test_only_an_administrator_makes_tokens(api: TestClient, role: str) -> None:
    other = as_(api, created(api, role=role)["token"])
    for method, path in (
        ("GET", TOKENS),
        ("POST", TOKENS),
        ("DELETE", f"{TOKENS}/x"),
        ("POST", f"{TOKENS}/admin/rotate"),
    ):
        assert other.request(method, path, json={"user": "eve", "role": "admin"}).status_code == 403
    assert len(api.get(TOKENS).json()["tokens"]) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"role": "root"}, "body.role"),
        ({"user": "a b"}, "body.user"),
        ({"user": "admin"}, "user"),
        ({"expires": "soon"}, "body.expires"),
        ({"expires": -1}, "body.expires"),
        ({"note": "x" * 201}, "body.note"),
        ({"note": "\x00"}, "note"),
        ({"secret": "mine"}, "body.secret"),
    ],
)
def test_a_bad_token_is_refused(api: TestClient, fields: dict[str, Any], field: str) -> None:
    response = api.post(TOKENS, json={"user": "ann", "role": "viewer", **fields})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert [problem["field"] for problem in response.json()["problems"]] == [field]


def test_a_token_that_is_not_there_cannot_be_revoked(api: TestClient, runtime: FakeRuntime) -> None:
    assert api.delete(f"{TOKENS}/nothere").status_code == 404
    assert "it can be rotated" in api.delete(f"{TOKENS}/admin").json()["detail"]
    assert api.get(TOKENS).status_code == 200


def test_the_administrators_token_is_rotated(api: TestClient, runtime: FakeRuntime) -> None:
    new = api.post(f"{TOKENS}/admin/rotate").json()["token"]
    assert (runtime.home.read_token(), new.startswith("rw_admin_")) == (new, True)
    assert (runtime.home.path / "token").stat().st_mode & 0o777 == 0o600
    assert api.get(TOKENS).status_code == 401
    assert as_(api, new).get(TOKENS).status_code == 200
    assert opens(auth.Tokens(runtime.store), new), "after a restart"
    assert runtime.store.events()[-1].kind == "token-rotated"


def test_the_administrators_new_token_is_hidden_from_the_log(api: TestClient) -> None:
    new = api.post(f"{TOKENS}/admin/rotate").json()["token"]
    assert SECRETS.hide(f"Ray was given {new}") == "Ray was given ***"


def test_an_open_stream_of_a_rotated_administrator_is_over(store: Store) -> None:
    auth.remember(store, "old")
    tokens = auth.Tokens(store)
    grant = tokens.check("Bearer old")
    tokens.rotate_admin("new", BY)
    assert not tokens.is_valid(grant)
    assert tokens.is_valid(tokens.check("Bearer new"))


def test_no_token_in_any_answer_or_event(api: TestClient, runtime: FakeRuntime) -> None:
    """Of all routes that read, asked by somebody with a token."""
    secret = created(api)["token"]
    paths = [path for path, entry in api.get("/api/v1/openapi.json").json()["paths"].items() if "get" in entry]
    paths.remove("/api/v1/events/stream")  # it has no end
    texts = [as_(api, secret).get(path.replace("{workload_id}", "x")).text for path in paths]
    texts += [json.dumps([event.cause, dict(event.data)]) for event in runtime.store.events()]
    assert len(texts) > 8
    for text in texts:
        assert not [each for each in (secret, secret.rpartition("_")[2], runtime.token) if each in text]


def test_every_app_reads_the_tokens_that_are_stored(api: TestClient, runtime: FakeRuntime) -> None:
    secret = created(api)["token"]
    later = TestClient(create_app(runtime))
    later.headers["authorization"] = f"Bearer {secret}"
    assert later.get("/api/v1/workloads").status_code == 200
