"""The YAML reader: plain values mean what they say, places are kept, and what can explode is refused."""

from __future__ import annotations

import contextlib
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.kernel import strict_yaml
from pipeline.kernel.errors import InputError
from pipeline.kernel.strict_yaml import YamlProblem, parse


@pytest.fixture(params=["libyaml", "pure Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every claim holds with libyaml and without it."""
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16:9", "16:9"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("5", 5),
        ("-12", -12),
        ("+3", 3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("nan", "nan"),
        ("infinity", "infinity"),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text: str, value: object) -> None:
    """`16:9` and `yes` are text, 010 is never 8: the words that YAML 1.1 turned into something else."""
    found = parse(f"key: {text}\n", "x.yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: .inf", "finite"),
        ("a: -.INF", "finite"),
        ("a: .nan", "finite"),
        ("a: 1e400", "finite"),
        (f"a: {'9' * 5000}", "digits"),
        ("a: &x 1\nb: *x", "anchors"),
        ("a: &x 1", "anchors"),
        ("a: *x", "aliases"),
        ("a: &x [1]", "anchors"),
        ("a: {b: 1}\n<<: {c: 2}", "merge keys"),
        ("a: 1\nb: 2\na: 3", "twice"),
        ("a: {b: 1, b: 1}", "twice"),
        ("a: 1\n'a': 2", "twice"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!python/name:os.system", "tag"),
        ("a: ! 5", "tag"),
        ("a: !!float 5", "tag"),
        ("a: !!int five", "whole number"),
        ("a: !!map {}", "tag"),
        ("5: a", "names are text"),
        ("true: a", "names are text"),
        ("~: a", "names are text"),
        ("? [a]\n: b", "a name is expected"),
        ("a: {{ mood }}", "a name is expected"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: b: c", "quote"),
        ("a:\n\t- b", "not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: '", "not valid YAML"),
        ("a: \x07", r"U\+0007"),
        ("a: \x00", r"U\+0000"),
        ('a: "\\x07"', "control character"),
        ('a: "\\0"', "control character"),
        ('a: "\\ud800"', "Unicode|control"),
        ("[" * 100_000, "deep"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "deep"),
        ("- " * 60 + "x", "deep"),
        (b"a: \xff", "UTF-8"),
    ],
)
def test_what_surprises_or_explodes_is_refused(text: str | bytes, says: str) -> None:
    """One sentence with line and column, and never an error of Python's or PyYAML's own."""
    with pytest.raises(YamlProblem, match=says) as caught:
        parse(text, "x.yaml")
    assert isinstance(caught.value, InputError)
    assert caught.value.line >= 1
    assert caught.value.column >= 1
    assert str(caught.value).startswith("x.yaml:")
    assert "\n" not in str(caught.value)


def test_a_mistake_names_the_line_and_column_where_it_is() -> None:
    """Both count from 1, as editors do."""
    with pytest.raises(YamlProblem) as caught:
        parse("a: 1\nb:\n  - x\n  - *y\n", "x.yaml")
    assert (caught.value.line, caught.value.column) == (4, 5)
    with pytest.raises(YamlProblem) as caught:
        parse("a: 1\nb: x\x07", "x.yaml")
    assert (caught.value.line, caught.value.column) == (2, 5)


def test_every_value_keeps_its_place_and_its_text() -> None:
    """A price of 1.50 is found with its zero, at its line and column."""
    root = parse("# prices\nprices:\n  short: 1.50\n  list: [a, b]\n", "x.yaml")
    node = root.at("prices", "short")
    assert (node.value, node.text, node.line, node.column) == (1.5, "1.50", 3, 10)
    assert root.place("prices", "list", 1) == (4, 13)
    assert root.place("prices", "missing", "deeper") == root.place("prices")
    with pytest.raises(KeyError):
        root.at("missing")


def test_merge_bombs_and_laughs_end_at_once() -> None:
    """The bombs that cost PyYAML seconds and gigabytes are refused at their first anchor."""
    laughs = "a: &a [x]\n" + "".join(
        f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    merges = "a: &a {x: 1}\n" + "".join(
        f"{c}: &{c} {{<<: [{','.join([f'*{p}'] * 8)}]}}\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    started = time.monotonic()
    for bomb in (laughs, merges):
        with pytest.raises(YamlProblem, match="anchors"):
            parse(bomb, "x.yaml")
    assert time.monotonic() - started < 1


def test_too_large_a_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds on size and on the number of values hold."""
    monkeypatch.setattr(strict_yaml, "MAX_CHARACTERS", 10)
    with pytest.raises(YamlProblem, match="larger"):
        parse("a: 34567890", "x.yaml")
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 3)
    with pytest.raises(YamlProblem, match="more than 3 values"):
        parse("[1,2,3]", "x.yaml")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_document_is_none(text: str) -> None:
    """Nothing written is None, not an error: the caller knows what that means."""
    assert parse(text, "x.yaml").value is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_yaml_problem(text: str) -> None:
    """Whatever is in the file, the answer is a value or one clear problem."""
    with contextlib.suppress(YamlProblem):
        parse(text, "x.yaml")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.text(alphabet=st.characters(codec="ascii", exclude_categories=["C"]), max_size=9)
        | st.integers(-(10**9), 10**9)
        | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=3),
        max_leaves=9,
    )
)
def test_what_pyyaml_writes_is_read_back_equal(value: object) -> None:
    """Plain values survive the way out and back, except where the 1.1 and 1.2 schemas differ: hence the quotes."""
    assert parse(
        yaml.safe_dump(value, default_style='"' if isinstance(value, str) else None), "x.yaml"
    ).value == value or _has_plain_text_of_1_1(value)


def _has_plain_text_of_1_1(value: object) -> bool:
    """Whether some text is a number for 1.2 but text for 1.1 (such as `1e3`), which PyYAML leaves without quotes."""
    if isinstance(value, dict):
        return any(_has_plain_text_of_1_1(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_plain_text_of_1_1(item) for item in value)
    return isinstance(value, str) and value[:1] in "+-.0123456789"
