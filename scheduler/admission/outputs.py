"""Where a step may write: never where it reads, where another step writes, or where somebody's own files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from workloads.errors import Problem, SpecError
from workloads.loading import is_url, too_long
from workloads.models import PACKAGE_PREFIX, is_hub_id
from workloads.outputs import is_ours
from workloads.remote import may_publish
from workloads.spec import WorkloadSpec

from ..store import Record

EMPTY_FOLDER = "choose an empty folder"


def local_output(output: str) -> str | Problem:
    """The folder an output names, without `file://`, or what is wrong with it."""
    if problem := too_long(output, "output"):
        return problem
    folder = output.removeprefix("file://")
    if is_url(folder) or not Path(folder).is_absolute():
        return Problem(f"{output} is no folder of a file system", "output", "choose a folder that every node sees")
    try:
        return str(Path(folder).resolve())
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
        return Problem(f"{folder!r} is no path: {error}", "output", "choose another folder")


def unpublishable(url: str, others: Mapping[str, str | None]) -> list[Problem]:
    """What speaks against a URL that a step's output is to be published to."""
    for step, other in others.items():
        if other is not None and other.rstrip("/") == url.rstrip("/"):
            return [Problem(f"step {step!r} publishes to {url} too", "output", "choose another folder")]
    try:
        free = may_publish(url)
    except SpecError as error:
        return [Problem(error.problems[0].message, "output", "a folder, or a URL that pyarrow or fsspec can open")]
    except OSError as error:
        return [Problem(f"{url} cannot be read: {error}", "output", "check the address and the credentials")]
    return [] if free else [Problem(f"{url} holds what Raywise did not write", "output", EMPTY_FOLDER)]


def inside_home(spec: WorkloadSpec, home: Path, chosen: str | None) -> list[Problem]:
    """What a step may not touch of the service's own folder, where its token and its database lie: nothing is written
    there, and nothing is read but what workloads left in `runs`. A code folder may hold it: it is not packed. `chosen`:
    the output that the user chose, a path or a URL."""
    problems: list[Problem] = []
    home = home.resolve()
    output = None if chosen is None or is_url(local := _local(chosen)) else _resolved(local)
    if output is not None and (output == home or output in home.parents or home in output.parents):
        problems.append(
            Problem(f"{output} is, holds or lies in the service's own folder", "output", "choose another folder")
        )
    for field, path in _read_by(spec):
        read = _resolved(path)
        runs = home / "runs"
        if (read == home or home in read.parents) and runs not in read.parents:
            problems.append(Problem(f"{read} is the service's own", field, "name another path"))
    return problems


def too_long_paths(spec: WorkloadSpec) -> list[Problem]:
    """Paths that are too long only now that the outputs of other steps are in them."""
    found = (too_long(path, field) for field, path in _read_by(spec))
    return [problem for problem in found if problem is not None]


def taken(spec: WorkloadSpec, others: Mapping[str, str]) -> list[Problem]:
    """What speaks against the output that the user chose for a step; `others` are those of earlier steps, by name."""
    assert spec.output is not None
    folder = Path(spec.output)
    for step, other in others.items():
        if folder == Path(other):
            return [Problem(f"step {step!r} writes to {folder} too", "output", "choose another folder")]
    for field, path in _read_by(spec):
        problem = _overlap(folder, _resolved(path), field)
        if problem is not None:
            return [problem]
    try:
        free = is_ours(folder)
    except OSError as error:
        return [Problem(f"{folder} cannot be read: {error.strerror}", "output", "choose another folder")]
    return [] if free else [Problem(f"{folder} holds what Raywise did not write", "output", EMPTY_FOLDER)]


def in_use(records: Sequence[Record], live: Iterable[Record], runs: Path) -> list[Problem]:
    """What speaks against the outputs that users chose for these workloads, beside those that have not ended: two that
    write into one folder, or publish to one URL, would each take the other's files for old ones. `runs` is where the
    workloads' own folders are: nobody chooses one of those."""
    chosen = [record for record in records if record.publish or Path(record.run_dir) not in Path(record.output).parents]
    if not chosen:
        return []
    same = {record.id for record in records}
    others = [other for other in live if other.id not in same]
    ours = f"{runs.resolve()}/"
    problems = []
    for record in chosen:
        field = f"steps.{record.name}.output" if record.pipeline_id else "output"
        place = record.publish or record.output
        if not record.publish and f"{place}/".startswith(ours):
            problems.append(Problem(f"{place} is among the folders of workloads", field, "choose another folder"))
            continue
        there = f"{place.rstrip('/')}/"
        for other in others:
            theirs = f"{(other.publish or other.output).rstrip('/')}/"
            if theirs.startswith(there) or there.startswith(theirs):
                hint = "wait until it has ended, cancel it, or choose another folder"
                problems.append(Problem(f"{other.id}, which has not ended, writes to {theirs[:-1]}", field, hint))
                break
    return problems


def _local(path: str) -> str:
    """A path without the scheme that says it is one."""
    return path.removeprefix("file://").removeprefix("local://")


def _resolved(path: str) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, ValueError, RuntimeError):  # who reads it says what is wrong with it
        return Path(path)


def _overlap(folder: Path, read: Path, field: str) -> Problem | None:
    if folder == read:
        relation = "is"
    elif folder in read.parents:
        relation = "contains"
    elif read in folder.parents and field != "code":  # beside one's own code is where results often go
        relation = "lies inside"
    else:
        return None
    what = {"code": "the code folder", "model": "the model folder"}.get(field, f"the {field}")
    hint = "choose a folder beside it" if field != "code" else "put the code in a folder of its own: code: my_code"
    return Problem(f"{folder} {relation} {what} {read}", "output", hint)


def _read_by(spec: WorkloadSpec) -> Iterator[tuple[str, str]]:
    """Local paths that a step reads, with the fields that name them."""
    given = getattr(spec, "input", None)
    fields = {f"input.{name}": path for name, path in given.items()} if isinstance(given, dict) else {"input": given}
    fields["code"] = spec.code
    model = getattr(spec, "model", None)
    if model is not None and not model.startswith(PACKAGE_PREFIX) and not is_hub_id(model):
        fields["model"] = model
    for field, path in fields.items():
        local = _local(path) if path is not None else None
        if local and not is_url(local):
            yield field, local
