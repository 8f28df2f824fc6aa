"""Explanations that are put into words when somebody asks for them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..types import Explanation

Said = Explanation | Callable[[], Explanation]


class Explanations(Mapping[str, Explanation]):
    """By workload. What nobody asks for is not put into words."""

    def __init__(self) -> None:
        self._known: dict[str, Said] = {}

    def __getitem__(self, name: str) -> Explanation:
        found = self._known[name]
        if not isinstance(found, Explanation):
            found = self._known[name] = found()
        return found

    def __setitem__(self, name: str, value: Said) -> None:
        self._known[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def copy(self) -> Explanations:
        """One that changes by itself."""
        found = Explanations()
        found._known = dict(self._known)
        return found
