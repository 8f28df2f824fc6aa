"""Profiles kept on disk: read by other processes, made again where they are damaged or of something else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scheduler.estimate import model_profile
from scheduler.estimate.model_profile import Traced, cache_key, trace_config, use_cache
from scheduler.estimate.tracing import Variant

PREDICT = Variant(training=False)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
ELSEWHERE = f"""
import sys
from pathlib import Path
from transformers import BertConfig
from scheduler.estimate.model_profile import trace_config, use_cache
from scheduler.estimate.tracing import Variant
use_cache(Path(sys.argv[1]))
trace_config(BertConfig(**{SIZES!r}), Variant(training=False))
"""


def bert(**changes: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(**(SIZES | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A cache folder, in use."""
    use_cache(tmp_path / "profiles")
    yield tmp_path / "profiles"
    use_cache(None)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[Variant]:
    """Grows with every model that is really traced."""
    made: list[Variant] = []
    trace = model_profile._traced

    def counted(subject: Any, variant: Variant) -> Traced:
        made.append(variant)
        return trace(subject, variant)

    monkeypatch.setattr(model_profile, "_traced", counted)
    return made


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_another_process_reads_what_the_first_wrote(folder: Path, traces: list[Variant]) -> None:
    """Also where sets and dictionaries come in another order."""
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    root = Path(model_profile.__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(folder)]
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=240)
    found = trace_config(bert(), PREDICT)
    assert trace_config(bert(_name_or_path="elsewhere"), PREDICT) is found
    assert traces == []
    use_cache(None)
    assert trace_config(bert(), PREDICT) == found
    assert len(traces) == 1


@pytest.mark.parametrize(
    "damage", [b"", b'{"profile"', b"[]", b"\xff\xfe"], ids=["empty", "cut off", "other", "no text"]
)
def test_a_damaged_file_is_made_again(folder: Path, traces: list[Variant], damage: bytes) -> None:
    first = trace_config(bert(), PREDICT)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage)
    use_cache(folder)
    assert trace_config(bert(), PREDICT) == first
    assert (len(traces), files(folder), file.read_bytes()) == (2, [file.name], whole)


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        ({"hidden_size": 64}, PREDICT),
        ({"hidden_act": "relu"}, PREDICT),
        ({}, Variant(False, "bf16")),
        ({}, Variant(True)),
    ],
    ids=["a wider model", "another activation", "another precision", "training"],
)
def test_something_else_is_not_taken_for_it(
    folder: Path, traces: list[Variant], config: dict[str, Any], variant: Variant
) -> None:
    first, other = trace_config(bert(), PREDICT), trace_config(bert(**config), variant)
    assert (len(traces), len(files(folder))) == (2, 2)
    use_cache(folder)
    assert (trace_config(bert(), PREDICT), trace_config(bert(**config), variant)) == (first, other)
    assert len(traces) == 2
    assert first != other


def test_another_library_or_other_code_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = bert().to_dict()
    keys = [cache_key(config, PREDICT)]
    with monkeypatch.context() as patched:
        patched.setattr(torch, "__version__", "0.0.1")
        keys.append(cache_key(config, PREDICT))
    for file in Path(model_profile.__file__).parent.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(model_profile, "__file__", str(tmp_path / "model_profile.py"))
    assert cache_key(config, PREDICT) == keys[0], "the same code in another place"
    for name in ("fitting", "model_profile", "profile", "repeats", "subjects", "tracing"):
        with (tmp_path / f"{name}.py").open("a") as file:
            file.write("# changed\n")
        keys.append(cache_key(config, PREDICT))
    assert len(set(keys)) == len(keys) == 8


def test_where_nothing_can_be_written_the_answer_comes_anyway(tmp_path: Path, traces: list[Variant]) -> None:
    (tmp_path / "taken").write_text("a file")
    use_cache(tmp_path / "taken")
    first = trace_config(bert(), PREDICT)
    assert trace_config(bert(), PREDICT) is first
    assert len(traces) == 1
    use_cache(None)


def test_what_memory_has_no_room_for_is_still_on_disk(
    folder: Path, traces: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_profile, "KEPT_IN_MEMORY", 1)
    first = trace_config(bert(), PREDICT)
    trace_config(bert(), Variant(False, "bf16"))
    assert len(model_profile._memory) == 1
    again = trace_config(bert(), PREDICT)
    assert again == first
    assert again is not first
    assert len(traces) == 2


def test_the_keywords_are_the_fields_of_a_variant() -> None:
    assert list(model_profile.Options.__annotations__) == list(Variant.__dataclass_fields__)
