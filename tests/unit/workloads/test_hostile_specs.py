"""Specs that were written to do harm: each is refused in plain words, or read; in bounded time, and always as what can
be stored and sent as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workloads import yaml_values
from workloads.errors import Problem, SpecError
from workloads.loading import MAX_PROBLEMS, load_text
from workloads.spec import MAX_STEPS

COMMAND = "kind: command\nname: a\ncommand: echo\n"
OWN = "kind: train\nname: t\nentrypoint: m:f\nhyperparameters: "
STEP = " - {name: x, kind: command, command: '%s'}\n"
PARAMETERS = "kind: pipeline\nname: p\nparams: {a: '%s'}\nsteps:\n" + STEP


def outcome(text: str, *overrides: str) -> Any:
    """The steps as JSON, or the problems; both are sent as strict JSON."""
    try:
        found: Any = [
            step.model_dump(mode="json") for step in load_text(text, base=Path("/x"), overrides=overrides).steps
        ]
    except SpecError as error:
        found = error.problems
    problems = [each for each in found if isinstance(each, Problem)]
    assert len(problems) <= MAX_PROBLEMS
    assert not [each for each in problems if len(str(each)) > 5000]
    json.dumps([str(each) if isinstance(each, Problem) else each for each in found], allow_nan=False).encode()
    return found


def message(text: str, *overrides: str) -> str:
    found = outcome(text, *overrides)
    assert isinstance(found[0], Problem), found
    return found[0].message


def laughs(levels: int, entry: str, many: str) -> str:
    lines = [entry] + [f"a{i}: &a{i} " + many.replace("@", f"*a{i - 1}") for i in range(1, levels)]
    return "\n".join(lines) + "\n" + COMMAND


REFUSED = {
    "lists of aliases of lists": (laughs(9, "a0: &a0 [x]", f"[{', '.join(['@'] * 10)}]"), "too many nodes"),
    "merges of merges": (laughs(9, "a0: &a0 {a: 1, b: 2}", f"{{<<: [{', '.join(['@'] * 10)}]}}"), "repeat too much"),
    "a merge into itself": ("a: &a\n  <<: *a\n" + COMMAND, "merged into itself"),
    "a merge of what merges it": ("a: &a {b: &b {<<: *a}}\n" + COMMAND, ""),
    "aliases that make a deep list": (
        laughs(500, "a0: &a0 [x]", "[@]"),
        "nested more than 100 deep",
    ),
    "brackets": (COMMAND + "needs: " + "[" * 500_000, "nested more than 100 deep"),
    "braces": (COMMAND + "env: " + "{a: " * 100_000, "nested more than 100 deep"),
    "dashes": (COMMAND + "needs:\n" + "- " * 100_000, "nested more than 100 deep"),
    "many short values": (COMMAND + "needs: [" + "a," * 500_000 + "]", "too many nodes"),
    "many aliases of one text": (
        "a: &a '" + "x" * 900_000 + "'\nb: [" + "*a," * 20_000 + "]\n" + COMMAND,
        "too many nodes",
    ),
    "a number of a million digits": (COMMAND + "priority: " + "9" * 1_000_000, "too many digits"),
    "a hexadecimal number without end": (COMMAND + "priority: 0x" + "f" * 1_000_000, "too many digits"),
    "a binary number without end": (OWN + "{a: 0b" + "1" * 1_000_000 + "}", "too many digits"),
    "a number to the base of 60": (OWN + "{a: 1" + ":1" * 300_000 + "}", "too many digits"),
    "a fraction to the base of 60": (COMMAND + "budget_usd: 1" + ":1" * 3000 + ".5", "too many digits"),
    "more than 63 bits": (OWN + "{a: 9223372036854775808}", "at most 63 bits"),
    "more than 63 bits below zero": (OWN + "{a: -99999999999999999999}", "at most 63 bits"),
    "infinity": (COMMAND + "budget_usd: .inf", "finite number"),
    "what overflows": (OWN + "{a: 1.0e+999}", "finite number"),
    "no number": (OWN + "{a: {b: [.nan]}}", "finite number"),
    "a negative infinity for a parameter": (PARAMETERS % ("x", "x") + "deadline: -.inf\n", "finite number"),
    "1e999 as a text": (COMMAND + "budget_usd: 1e999", "expected a number, got '1e999'"),
    "bytes": (OWN + "{a: !!binary /w==}", "a bytes is no value"),
    "a set": (OWN + "{a: !!set {x}}", "a set is no value"),
    "pairs": (OWN + "{a: !!pairs [x: 1]}", "a tuple is no value"),
    "a Python tag": (COMMAND + "x: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "another Python tag": (COMMAND + "x: !!python/name:os.system", "could not determine a constructor"),
    "a tag of somebody's": (COMMAND + "x: !include /etc/passwd", "could not determine a constructor"),
    "a key that is a number": (OWN + "{1: a}", "the name of a field is a text, not int"),
    "a key that is a truth": (COMMAND + "env: {ON: a}", "the name of a field is a text, not True"),
    "a key that is nothing": (OWN + "{null: a}", "the name of a field is a text, not None"),
    "a key that is a date": (OWN + "{2024-01-01: a}", "the name of a field is a text, not date"),
    "a key that is a list": (OWN + "{[a]: a}", "unhashable key"),
    "a key with a NUL": (OWN + '{"a\\0": 1}', "NUL"),
    "a NUL in a command": ('kind: command\nname: a\ncommand: "a\\0b"\n', "NUL"),
    "a NUL in a variable": (COMMAND + 'env: {A: "\\0"}\n', "NUL"),
    "a name without end": ("kind: command\ncommand: x\nname: " + "a" * 900_000, "is not allowed here"),
    "a kind without end": ("name: a\nkind: " + "a" * 900_000, "unknown kind"),
    "a duration without end": (COMMAND + "deadline: '" + "9" * 900_000 + "s'", "expected a duration"),
    "a count without end": (COMMAND + "resources: {count: '" + "9" * 900_000 + "'}", "expected a count"),
    "a size without end": (
        COMMAND + "resources: {memory_per_shard: '" + "9" * 500 + "'}",
        "expected a size that there is",
    ),
    "a path without end": (COMMAND + "output: " + "/a" * 400_000, "too long"),
    "fields nobody knows": ("".join(f"k{i}: 1\n" for i in range(20_000)) + COMMAND, "unknown field"),
    "a parameter put in too often": (PARAMETERS % ("x" * 400_000, "${a}" * 100_000), "characters where they are used"),
    "too many steps": ("kind: pipeline\nname: p\nsteps:\n" + STEP % "x" * (MAX_STEPS + 1), "at most 1000"),
    "a reference by way of a parameter": (PARAMETERS % ("${b.output}", "${a}"), "names no step"),
    "two documents": (COMMAND + "---\n" + COMMAND, "another document"),
    "variables of ours": (COMMAND + "env: {RAYWISE_JOB: x}", "is set by the service"),
    "the cluster's token": (COMMAND + "env: {RAY_AUTH_TOKEN: x}", "is set by the service"),
    "a variable that is an assignment": (COMMAND + "env: {'A=B': x}", "is not allowed here"),
    "a variable with a line break": (COMMAND + 'env: {"A\\n": x}', "is not allowed here"),
    "a name with a path": (COMMAND.replace("name: a", "name: ../../x"), "is not allowed here"),
    "a name with a line break": (COMMAND.replace("name: a", 'name: "a\\n"'), "is not allowed here"),
    "a queue with a path": (COMMAND + "queue: ../x", "is not allowed here"),
    "an entrypoint with a path": (OWN.replace("m:f", "../m:f") + "{}", "is not allowed here"),
    "a step's name with a reference": (
        PARAMETERS.replace("name: x,", "name: '${x.output}',") % ("x", "x"),
        "is not allowed",
    ),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_harm_is_refused(text: str, said: str) -> None:
    if said:
        assert said in message(text)
    else:
        outcome(text)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["command=" + "[" * 100_000], "nested"),
        (["retries=0x" + "f" * 10_000], "too many digits"),
        (["env." + "a." * 200 + "b=1"], "expected key=value"),
        (["x" * 1_000_000], "expected key=value"),
        (["env.A=x"] * 1001, "at most 1,000"),
        ([f"env.A{i}=[{'a,' * 20_000}]" for i in range(3)], "too many nodes"),
        (['env.A="\\0"'], "NUL"),
        (["env.\x00=a"], "NUL"),
        (["env.\ud800=a"], "surrogate"),
        (["budget_usd=.inf"], "finite"),
    ],
)
def test_overrides_that_do_harm(overrides: list[str], said: str) -> None:
    assert said in message(COMMAND + "env: {B: b}\n", *overrides)


@pytest.mark.parametrize(
    "output",
    [
        "FILE:///srv/x",
        "File://localhost/srv/x",
        "LOCAL:///srv/x",
        "local:///srv/x::zip://y",
        "zip://a.txt::file:///srv/x.zip",
        "simplecache::s3://bucket/x",
        "filecache::file:///srv/x",
        "s3://bucket/x::file:///srv/y",
        "dir://x",
        "https://example.org/a::b",
        "https://[::1]/a::b",
        "http://169.254.169.254/latest/meta-data",
        "http://user@169.254.169.254:80/x",
        "http://2852039166/x",
        "http://0xa9fea9fe/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://[fe80::1]/x",
        "http://[fd00:ec2::254]/x",
        "http://METADATA.google.internal./x",
        "s3://bucket/x?endpoint_override=http%3A%2F%2F169.254.169.254",
        "s3://bucket/x?endpoint_override=169.254.169.254:80",
    ],
)
@pytest.mark.parametrize("field", ["output", "input", "model"])
def test_urls_that_are_no_storage(output: str, field: str) -> None:
    text = "kind: batch-infer\nname: a\nmodel: package:m\ninput: x.csv\n".replace(
        "model: package:m\n", "" if field == "model" else "model: package:m\n"
    )
    text = text.replace("input: x.csv\n", "" if field == "input" else "input: x.csv\n")
    (problem,) = outcome(f"{text}{field}: '{output}'\n")
    assert problem.field == field
    assert "is not opened" in problem.message or "a machine's own" in problem.message


@pytest.mark.parametrize(
    "output",
    ["s3://bucket/x", "gs://b/x", "file:///srv/x", "memory://x", "http://[::1]:9000/x"],
)
def test_urls_of_storage(output: str) -> None:
    assert outcome(COMMAND + f"output: {output}\n")[0]["output"] in (output, "/srv/x")


def test_merge_keys_and_aliases_that_are_no_bomb() -> None:
    text = "kind: pipeline\nname: p\nsteps:\n - &a {name: a, kind: command, command: x, env: &e {A: '1'}}\n"
    text += " - {<<: *a, name: b, env: {<<: *e, B: '2'}}\n"
    first, second = outcome(text)
    assert (first["env"], second["env"], second["command"]) == ({"A": "1"}, {"A": "1", "B": "2"}, "x")


def test_without_libyaml_the_same_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_values, "_FAST", yaml_values.yaml.SafeLoader)
    monkeypatch.setattr(yaml_values, "_FastLoader", yaml_values._WordyLoader)
    assert "nested" in message(COMMAND + "needs: " + "[" * 500)
    assert "repeat too much" in message(*REFUSED["merges of merges"][:1])
    assert outcome(COMMAND)[0]["command"] == "echo"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(["${x.output}", "${a}", "$${a}", "~", "..", "1..2", "10m", "<<", "s3://b", "file:///", "\x00"]),
)
KEYS = st.one_of(
    st.sampled_from(
        ["kind", "name", "command", "env", "needs", "input", "output", "steps", "params", "resources", "x"]
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=5
)
SPECS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["command", "train", "pipeline", "preprocess", "batch-infer", "serve"]),
        "name": st.just("a"),
    },
    optional=dict.fromkeys(
        ("command", "env", "needs", "input", "output", "model", "entrypoint", "hyperparameters", "steps"), VALUES
    )
    | dict.fromkeys(("params", "resources", "deadline", "budget_usd", "code", "queue", "priority"), VALUES),
)


@settings(max_examples=60, derandomize=True)
@given(SPECS)
def test_whatever_a_spec_holds_it_is_read_or_refused(spec: dict[str, Any]) -> None:
    outcome(yaml_values.yaml.safe_dump(spec, allow_unicode=True))


@settings(max_examples=150, derandomize=True)
@given(st.text(st.sampled_from(list("abk:{}[],-&*!<>|?'\"\\#%@ \n\t0x1.e~$é\u2028\ufeff")), max_size=60))
@example("*a: &a")
@example("? ? ?")
@example("%YAML 9.9\n---\na")
@example("&a [*a, {*a : *a}]")
@example("!<tag:yaml.org,2002:map> [a]")
@example("!!int ''")
@example("!!float ''")
@example("!!bool x")
@example("!!timestamp x")
@example("!!int [a]")
@example("!!null [a]")
@example("a: !!int 0x")
@example("a: !!float .")
@example("a: 1:")
def test_whatever_a_text_is_it_is_read_or_refused(text: str) -> None:
    outcome(text)
    outcome(COMMAND + text)
    outcome(COMMAND, f"env.A={text}")
