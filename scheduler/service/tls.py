"""The service's certificate and key, looked at before anything starts: readable, a pair, not about to expire."""

from __future__ import annotations

import datetime
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from workloads.errors import Problem, SpecError

WARN_DAYS = 14.0
"""A certificate that ends sooner is warned of."""


@dataclass(frozen=True)
class TlsFiles:
    """A certificate with its chain, and its private key: PEM files."""

    cert: Path
    key: Path


def check_tls(files: TlsFiles, now: datetime.datetime, file: str = "") -> list[str]:
    """A sentence for each thing that should be seen to. Raises SpecError where the service could not use them."""
    for name, path in (("cert", files.cert), ("key", files.key)):
        try:
            path.read_bytes()
        except OSError as error:
            hint = "give a PEM file that the service's user may read"
            raise SpecError(Problem(f"{path} cannot be read: {error.strerror}", f"tls.{name}", hint, file)) from None
    server_context(files, file)
    return [*_expiry(files.cert, now, file), *_openness(files.key)]


def server_context(files: TlsFiles, file: str = "") -> ssl.SSLContext:
    """What the server offers: TLS 1.2 and newer. Raises SpecError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key would ask for its password on the terminal.
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SpecError(_mismatch(files, error, file)) from None
    return context


def _mismatch(files: TlsFiles, error: Exception, file: str) -> Problem:
    if "KEY_VALUES_MISMATCH" in str(error):
        message, hint = f"{files.key} is not the key of {files.cert}", "give the key the certificate was made for"
        return Problem(message, "tls.key", hint, file)
    hint = "both must be PEM; the certificate first, then its chain; the key without a password"
    return Problem(f"{files.cert} and {files.key} cannot be used: {error}", "tls", hint, file)


def not_after(cert: Path) -> datetime.datetime:
    """When a certificate ends. Raises ValueError where it is none."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(cert.read_bytes()).not_valid_after_utc


def _expiry(cert: Path, now: datetime.datetime, file: str) -> list[str]:
    try:
        end = not_after(cert)
    except ValueError as error:
        raise SpecError(Problem(f"{cert} is no certificate: {error}", "tls.cert", "give a PEM file", file)) from None
    days = (end - now).total_seconds() / 86400
    if days <= 0:
        return [f"the certificate {cert} expired on {end:%Y-%m-%d}: clients refuse it"]
    return [f"the certificate {cert} expires on {end:%Y-%m-%d}, in {days:.0f} days"] if days < WARN_DAYS else []


def _openness(key: Path) -> list[str]:
    mode = stat.S_IMODE(key.stat().st_mode)
    return [f"the key {key} can be read by everybody (mode {mode:04o})"] if mode & 0o004 else []
