"""Puts what a benchmark measured into its section of a document; the other sections are left as they are."""

from __future__ import annotations

from pathlib import Path


def with_section(document: str, section: str) -> str:
    """A document with this section (its first line is its heading) in the place of the one of that heading, or at its
    end."""
    heading = section.splitlines()[0]
    parts = document.rstrip().split("\n## ")
    titled = [parts[0], *(f"## {part}" for part in parts[1:])]
    kept = [section.strip() if part.splitlines()[:1] == [heading] else part.strip() for part in titled]
    if section.strip() not in kept:
        kept.append(section.strip())
    return "\n\n".join(kept) + "\n"


def write_section(path: Path, section: str) -> None:
    """Into the file; a new one is made."""
    before = path.read_text() if path.exists() else "# Reliability\n"
    path.write_text(with_section(before, section))
