"""Folders on a real S3 server (moto's, on loopback): what local test file systems do not show, such as keys without
folders, endpoints and credentials."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from workloads.errors import SpecError, WorkloadFailed
from workloads.inputs import inspect_table
from workloads.outputs import MARKER
from workloads.remote import fetch, may_publish, publish, read_text


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Host and port of the server."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket with the credentials in the environment; the form of a URL in it, with `{}` for the path."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"b{abs(hash(request.node.nodeid))}"
    with urllib.request.urlopen(urllib.request.Request(f"http://{server}/{name}", method="PUT"), timeout=10):
        pass
    return f"s3://{name}/{{}}?endpoint_override={server}&scheme=http"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """An output as a body leaves it."""
    folder = tmp_path / "output"
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "rows.csv").write_text("text,label\nwhere is my parcel,delivery\nrefund please,refund\n")
    (folder / "metrics.json").write_text('{"accuracy": 0.5}')
    (folder / MARKER).write_text("ours")
    return folder


def test_what_is_published_can_be_read_fetched_and_published_again(bucket: str, written: Path, tmp_path: Path) -> None:
    url = bucket.format("runs/one")
    publish(written, url)
    assert read_text(bucket.format("runs/one/metrics.json")) == '{"accuracy": 0.5}'
    table = inspect_table(
        bucket.format("runs/one/test/rows.csv"), text_column="text", label_column="label", field="input", sample_rows=9
    )
    assert (table.rows, table.labels) == (2, (("delivery", 1), ("refund", 1)))
    fetched = fetch(url, tmp_path / "copy")
    assert {str(path.relative_to(fetched)) for path in fetched.rglob("*") if path.is_file()} == {
        "test/rows.csv",
        "metrics.json",
        MARKER,
    }
    (written / "metrics.json").unlink()
    publish(written, url)
    with pytest.raises(FileNotFoundError):
        read_text(bucket.format("runs/one/metrics.json"))


def test_what_is_not_ours_is_left_as_it_is(bucket: str, written: Path) -> None:
    (written / MARKER).unlink()
    publish(written, bucket.format("theirs"))
    assert not may_publish(bucket.format("theirs"))
    with pytest.raises(WorkloadFailed, match="did not write"):
        publish(written, bucket.format("theirs"))
    assert may_publish(bucket.format("new"))


def test_a_missing_object_is_refused_with_its_field(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="input"):
        inspect_table(bucket.format("no.csv"), text_column=None, label_column=None, field="input", sample_rows=1)
    with pytest.raises(FileNotFoundError, match="nothing at"):
        fetch(bucket.format("nowhere"), tmp_path / "copy")
