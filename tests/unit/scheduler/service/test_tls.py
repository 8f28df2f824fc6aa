"""Certificates are looked at before anything starts."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest

from certificates import NOW, make
from scheduler.service.tls import TlsFiles, check_tls, not_after, server_context
from workloads.errors import SpecError


def test_a_good_pair(tmp_path: Path) -> None:
    files = make(tmp_path / "a")
    assert check_tls(files, NOW) == []
    assert server_context(files).minimum_version == ssl.TLSVersion.TLSv1_2
    assert not_after(files.cert) == NOW + datetime.timedelta(days=90)


@pytest.mark.parametrize(
    ("days", "said"),
    [(-1, "expired on 2026-10-31: clients refuse it"), (5, "expires on 2026-11-06, in 5 days"), (15, "")],
)
def test_the_end_is_warned_of(tmp_path: Path, days: float, said: str) -> None:
    found = check_tls(make(tmp_path / "a", days), NOW)
    assert len(found) == bool(said)
    assert all(each.endswith(said) for each in found)


def test_a_key_that_everybody_reads_is_warned_of(tmp_path: Path) -> None:
    files = make(tmp_path / "a")
    files.key.chmod(0o644)
    assert check_tls(files, NOW) == [f"the key {files.key} can be read by everybody (mode 0644)"]


def test_what_cannot_be_used(tmp_path: Path) -> None:
    one, other, locked = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", password=b"x")
    (tmp_path / "none.pem").write_text("no certificate")
    for files, said in (
        (TlsFiles(one.cert, other.key), r"tls\.key: .*b/tls.key is not the key of .*a/tls.crt"),
        (TlsFiles(tmp_path / "gone", one.key), r"tls\.cert: .*gone cannot be read: No such file"),
        (TlsFiles(one.cert, tmp_path / "gone"), r"tls\.key: .*gone cannot be read: No such file"),
        (TlsFiles(tmp_path / "none.pem", one.key), r"tls: .*none.pem and .* cannot be used: "),
        (locked, "tls: .* cannot be used: "),
    ):
        with pytest.raises(SpecError, match=said) as refusal:
            check_tls(files, NOW, "service.yaml")
        assert refusal.value.problems[0].file == "service.yaml"
