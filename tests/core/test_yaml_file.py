"""YAML that is read with care: dangerous texts, and the scalars of YAML 1.2."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.core import yaml_file as nodes
from unfreeze.errors import ScheduleError


def read(text: str) -> object:
    return nodes.plain(nodes.compose(text, "x.yaml"), "value")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-05", 1e-5),
        ("-.5", -0.5),
        ("7", 7),
        ("-12", -12),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("1e999", "1e999"),
        ('"12"', "12"),
        ("block_3", "block_3"),
    ],
)
def test_scalars(word: str, value: object) -> None:
    found = read(word)
    assert found == value
    assert type(found) is type(value)


def test_not_finite_is_refused() -> None:
    for word in (".inf", "-.inf", ".NaN"):
        with pytest.raises(ScheduleError, match=r"x\.yaml:1: value must be finite"):
            read(word)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: &x [1]\nb: *x", 1, "anchors and aliases are not allowed"),
        ("a: 1\nb: *all", 2, "must be in quotes"),
        ("a: !!python/object/apply:os.system ['true']", 1, "tag .*python.* is not allowed"),
        ("a: !drop", 1, "must be in quotes"),
        ("a: *\n", 1, "must be in quotes"),
        ("a: 1\n---\nb: 2", 2, "only one document"),
        ("a: [1, 2", 1, "not valid YAML"),
        ("a: 1\n\tb: 2", 2, "not valid YAML"),
        ("a: 1\nb: \x07", 2, "U\\+0007 is not allowed"),
        ("[" * 5000, 1, "nested deeper than 20"),
    ],
)
def test_dangerous_and_broken_texts(text: str, line: int, reason: str) -> None:
    with pytest.raises(ScheduleError, match=rf"^x\.yaml:{line}: .*{reason}"):
        nodes.compose(text, "x.yaml")


def test_a_billion_laughs_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ScheduleError, match=r"x\.yaml:1: anchors"):
        nodes.compose("\n".join(lines), "x.yaml")


def test_size_and_emptiness() -> None:
    with pytest.raises(ScheduleError, match="longer than 1,000,000"):
        nodes.compose("#" * 1_000_001, "x.yaml")
    with pytest.raises(ScheduleError, match=r"x\.yaml: the file is empty"):
        nodes.compose("# only a comment\n", "x.yaml")


def test_keys_are_plain_and_stand_once() -> None:
    with pytest.raises(
        ScheduleError, match=r"x\.yaml:3: it: key 'a' appears twice \(first in line 1"
    ):
        nodes.pairs(nodes.compose("a: 1\nb: 2\na: 3", "x.yaml"), "it")
    with pytest.raises(ScheduleError, match=r"x\.yaml:1: it: a key must be plain text, not a list"):
        nodes.pairs(nodes.compose("? [a, b]\n: 1", "x.yaml"), "it")
    with pytest.raises(ScheduleError, match=r"unknown key 'epoch'\. Did you mean 'epochs'"):
        nodes.pairs(nodes.compose("epoch: 1", "x.yaml"), "it", ("epochs", "name"))


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["1e-3", "no", "*_bn", "!x", "~", ".nan", "null", "012", "a: b", "# c", "-"])
)


@given(st.lists(_scalars, max_size=5))
def test_what_is_dumped_is_read_back_the_same(values: list[object]) -> None:
    text = nodes.dump(values)
    assert read(text) == values
    # And other readers of YAML understand it too.
    assert yaml.safe_load(text) == values
