"""Texts that nobody in his right mind would write: only our own errors may come of them."""

import json
import os
from pathlib import Path

import pytest
import yaml
from fuzz.readers import CONFIG, READERS, SEGMENT, SEGMENTS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What is nothing else than hard to read.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=6,
)


@st.composite
def broken(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a few stretches replaced."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(start + 12, len(content))))
        piece = draw(st.binary(max_size=6) | st.sampled_from(PIECES))
        content = content[:start] + piece + content[end:]
    return content


PIECES = (
    b"[" * 3000, b"{" * 3000, b"- " * 3000, b"\n", b",", b'"', b": ", b"\0", b"\xff", b"&a *a",
    b"!!python/object:os.system x", b"1e999", b"-.inf", b"2001-99-99", b"0x", b"9" * 5000, b"null",
    b"../" * 50, b"a" * 300, b"/", b"? ", b"[]", b"{}", b"1:99:99", b"!!int x", b"=", b"<<: 1\n",
    b"\\ud800", b"\xe2\x80\xae", b"\xed\xa0\x80", b"-1", b"NaN", b"\r", b"\x85", b"!!binary '='",
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.data())
def test_broken_files_are_read_or_refused(name: str, tmp_path: Path, data: st.DataObject) -> None:
    read, seed = READERS[name]
    read(data.draw(broken(seed)), tmp_path)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(content=st.binary(max_size=200))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\xef\xbb\xbf")
@example(b"9" * 10_000)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path, content: bytes) -> None:
    READERS[name][0](content, tmp_path)


def changed(value: object, path: tuple, new: object) -> object:
    """A copy of plain values with one of them replaced."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Where each part of plain values is."""
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(p for key, part in inner for p in places(part, (*path, key)))]


@QUICK
@given(path=st.sampled_from(places(CONFIG)), new=VALUES)
def test_a_config_of_other_types_is_refused(tmp_path: Path, path: tuple, new: object) -> None:
    READERS["config"][0](yaml.safe_dump(changed(CONFIG, path, new)).encode(), tmp_path)


@QUICK
@given(path=st.sampled_from(places(SEGMENTS)), new=VALUES)
def test_segments_of_other_types_are_refused(tmp_path: Path, path: tuple, new: object) -> None:
    READERS["segments"][0](json.dumps(changed(SEGMENTS, path, new)).encode(), tmp_path)


@QUICK
@given(new=VALUES, key=st.sampled_from(["path", "state", "about", "events"]))
def test_a_journal_of_other_types_is_refused(tmp_path: Path, new: object, key: str) -> None:
    state = [0, os.stat(tmp_path).st_mtime_ns]  # noqa: PTH116
    row = {"path": str(tmp_path / "1.wav"), "state": state, "about": {}, "events": [], key: new}
    content = READERS["journal"][1] + json.dumps(row).encode() + b"\n"
    READERS["journal"][0](content, tmp_path)


def test_a_field_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    content = READERS["segments"][1].replace(b'"score"', b'"\\ud800score"')
    assert content != READERS["segments"][1]
    READERS["segments"][0](content, tmp_path)


def test_segments_know_their_fields() -> None:
    # Else the tests above would try nothing.
    assert set(SEGMENT) >= {"file", "sha256", "source", "label"}
    assert len(places(SEGMENTS)) > 12
