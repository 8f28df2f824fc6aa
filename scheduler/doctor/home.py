"""Judges the home folder, the store and the service that runs from it. Pure."""

from __future__ import annotations

from ..service.readiness import MIN_PATIENCE_S
from .facts import HomeFacts, ServiceFacts, StoreFacts
from .findings import Finding, fail, ok, warn

LARGE_STORE_BYTES = 4 * 2**30


def judge_home(facts: HomeFacts) -> list[Finding]:
    """Who can read what."""
    if facts.mode is None:
        return [ok("home", f"{facts.path} is not made yet")]
    if not facts.owned:
        return [fail("home", f"{facts.path} is another user's", "run as the user whose it is, or choose another home")]
    found = []
    if facts.mode & 0o077:
        do = f"chmod 700 {facts.path}, or start the service: it does"
        found.append(fail("home", f"{facts.path} is open to others (mode {facts.mode:04o})", do))
    else:
        found.append(ok("home", f"{facts.path} (mode {facts.mode:04o})"))
    modes = facts.private_modes or {}
    loose = {path: mode for path, mode in modes.items() if mode & 0o077}
    found += [
        fail("secrets", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        for path, mode in loose.items()
    ]
    if modes and not loose:
        found.append(ok("secrets", f"{len(modes)} files, their owner's only"))
    return found


def judge_store(facts: StoreFacts) -> list[Finding]:
    """Whether it opens, is whole, is of this version, and takes what is written."""
    if not facts.exists:
        return [ok("store", f"{facts.place} is not made yet")]
    if facts.error is not None:
        return [fail("store", f"{facts.place}: {facts.error}", "restore it from a backup (docs/deploy.md)")]
    found = [_version(facts), _integrity(facts), _writable(facts)]
    return [each for each in found if each is not None]


def _version(facts: StoreFacts) -> Finding | None:
    if facts.version is None or facts.expected_version is None or facts.version == facts.expected_version:
        return None
    if facts.version in facts.older_versions:
        do = "make a backup; the next start brings it up to date"
        return warn("store version", f"{facts.version}, this Raywise writes {facts.expected_version}", do)
    do = "use the Raywise that wrote it, or restore a backup of before"
    return fail("store version", f"{facts.version}; this Raywise reads {facts.expected_version}", do)


def _integrity(facts: StoreFacts) -> Finding | None:
    if facts.integrity is None:
        return None
    if facts.integrity != "ok":
        return fail("store integrity", facts.integrity, "stop the service and restore a backup (docs/deploy.md)")
    return ok("store integrity", "ok")


def _writable(facts: StoreFacts) -> Finding:
    if facts.write_error is not None:
        do = "free disk space, or see to the rights of the file and its folder"
        return fail("store", f"{facts.place} cannot be written: {facts.write_error}", do)
    size = "" if facts.size_bytes is None else f", {facts.size_bytes / 2**20:.1f} MiB"
    if facts.size_bytes is not None and facts.size_bytes > LARGE_STORE_BYTES:
        return warn("store", f"{facts.place}{size}", "keep it on a fast disk, or move to PostgreSQL")
    return ok("store", f"{facts.place}{size}")


def judge_service(facts: ServiceFacts) -> list[Finding]:
    """The service's port, certificate, health, and its cycles."""
    found = _tls(facts)
    if facts.url is None:
        found.append(warn("service", "none runs from this home", "start it: `raywise up`, or `raywise serve`"))
        return [*found, *_port(facts)]
    if facts.health_error is not None:
        do = "see its log; where its process hangs, restart it: no accepted workload is lost"
        return [*found, fail("service", f"{facts.url} does not answer: {facts.health_error}", do)]
    return [*found, ok("service", f"{facts.url} answers"), *_cycles(facts)]


def _tls(facts: ServiceFacts) -> list[Finding]:
    if facts.tls_error is not None:
        return [fail("tls", facts.tls_error, "give a certificate and the key it was made for, both PEM")]
    return [warn("tls", sentence, "renew it, and restart the service") for sentence in facts.tls_warnings]


def _port(facts: ServiceFacts) -> list[Finding]:
    if not facts.configured_port:
        return []
    if facts.port_error is not None:
        do = "end what has it, or configure another"
        return [fail("port", f"{facts.configured_port} cannot be had: {facts.port_error}", do)]
    return [ok("port", f"{facts.configured_port} is free")]


def _cycles(facts: ServiceFacts) -> list[Finding]:
    if facts.ready_reasons:
        return [fail("ready", reason, "see the service's log for the cycle") for reason in facts.ready_reasons]
    age_s = facts.last_cycle_age_s
    if facts.ready_reasons is None and age_s is None:
        return [warn("ready", "the service does not say whether it is ready", "update it")]
    if age_s is not None and age_s > MIN_PATIENCE_S and facts.ready_reasons is None:
        return [fail("ready", f"the last cycle ended {age_s:.0f} s ago", "see the service's log")]
    return [ok("ready", "yes" if age_s is None else f"the last cycle ended {age_s:.1f} s ago")]
