"""Which URLs a spec may name: those of other storage. None that is another way to write a local path, which would get
round the checks of paths, and no address where a cloud tells a machine its credentials. Used by `loading`."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qs, urlsplit

from .errors import Problem
from .refusals import shown

_URL = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_IPV6 = re.compile(r"\[[0-9a-f:.]*\]", re.IGNORECASE)
LOCAL_SCHEMES = frozenset(
    ("file", "local", "asynclocal", "dir", "zip", "tar", "libarchive", "reference", "generic", "git", "cached")
) | {"filecache", "blockcache", "simplecache", "dask", "worker", "jlab", "jupyter", "data"}
"""Of fsspec: what reads or writes the service's own files, or wraps another file system that may."""
METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "metadata", "instance-data"})
_METADATA_ADDRESSES = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})


def is_url(path: str) -> bool:
    """Whether a path is a URL (`s3://...`)."""
    return bool(_URL.match(path))


def unopenable(path: str, field: str) -> Problem | None:
    """What is wrong with a path or URL that a spec names, before anything is opened; None where it may be tried.
    `file:///...` and `local:///...` are paths, and are checked as such."""
    found = _URL.match(path)
    if path.startswith("file://") or (found is None and "://" not in path):
        return None
    chained = "::" in _IPV6.sub("", path)  # one file system within another, to fsspec, wherever it stands
    if chained or (found is not None and found[1] != "local" and found[1].lower() in LOCAL_SCHEMES):
        scheme = path.partition("://")[0]
        return Problem(f"a URL of {shown(scheme)} is not opened", field, "write a path, or a URL such as s3://...")
    if _is_metadata(path):
        return Problem("this address is a machine's own, not one of storage", field, "name another host")
    return None


def _is_metadata(url: str) -> bool:
    """Whether the host, or one that S3's client would be told in the query, is link-local or known to hand out a
    machine's credentials."""
    try:
        parts = urlsplit(url)
        hosts = [parts.hostname or ""]
        overrides = parse_qs(parts.query).get("endpoint_override", [])
        hosts += [urlsplit(each if "://" in each else f"//{each}").hostname or "" for each in overrides]
    except ValueError:
        return False  # who opens it says what is wrong with it
    return any(_is_metadata_host(host.lower().rstrip(".")) for host in hosts)


def _is_metadata_host(host: str) -> bool:
    if host in METADATA_HOSTS or host in _METADATA_ADDRESSES:
        return True
    try:
        return _address(host).is_link_local
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address a host is, also where it is written as one number (`2852039166`, `0xa9fea9fe`). Raises ValueError."""
    if re.fullmatch(r"0x[0-9a-f]{1,8}|[0-9]{1,10}", host):
        return ipaddress.IPv4Address(int(host, 0) if host.startswith("0x") else int(host))
    found = ipaddress.ip_address(host)
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
