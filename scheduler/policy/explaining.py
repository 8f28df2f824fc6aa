"""Explanations that are put into words when somebody asks for them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, KeysView, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TypeVar

from ..types import Explanation, WorkloadView

T = TypeVar("T")
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

    def later(self, names: Sequence[str], words: Callable[[T], Explanation], about: Sequence[T]) -> None:
        """What `words` says about each, when somebody asks."""
        self._known.update(zip(names, map(partial, repeat(words), about), strict=False))

    def keys(self) -> KeysView[str]:
        """The workloads."""
        return self._known.keys()

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


class Heard:
    """What was said to those that wait far behind, and of what: where that has not changed, the very same words are
    said again. By workload; of the last plans."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, object, tuple[object, ...], Explanation]] = {}
        self._scene: object = None

    def scene(self, scene: object, workloads: Collection[WorkloadView]) -> object:
        """What all words are about: the same object as long as it is equal. Forgets what was said of another, and, now
        and then, workloads that are gone."""
        if scene != self._scene:
            self._scene, self._known = scene, {}
        elif len(self._known) > 2 * len(workloads):
            here = {view.id for view in workloads}
            self._known = {name: said for name, said in self._known.items() if name in here}
        return self._scene

    def say(
        self, name: str, scene: object, table: object, about: tuple[object, ...], words: Callable[[], Explanation]
    ) -> Explanation:
        """The words, or those that were said before of the very same table (what is in it is not compared) and the
        same else."""
        known = self._known.get(name)
        if known is not None and known[0] is scene and known[1] is table and known[2] == about:
            return known[3]
        said = words()
        if scene is self._scene:
            self._known[name] = scene, table, about, said
        return said
