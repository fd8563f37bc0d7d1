import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_runs
from unfreeze.core import array_files
from unfreeze.core.array_files import RowFile, checksum, open_rows
from unfreeze.errors import RunError

ROWS = np.arange(7 * 3 * 2, dtype=np.float32).reshape(7, 3, 2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "part_0.bin"
    ROWS.tofile(path)
    return path


numbers = st.lists(st.integers(-7, 6), max_size=9).map(lambda n: np.array(n, np.int64))
masks = st.lists(st.booleans(), min_size=7, max_size=7).map(np.array)
ends = st.none() | st.integers(-9, 9)
slices = st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, -1]))


@settings(max_examples=100, deadline=None)
@given(index=numbers | masks | slices | st.integers(-7, 6))
def test_indexing_is_that_of_an_array(path, index):
    rows = RowFile(path, "float32", ROWS.shape)
    np.testing.assert_array_equal(rows[index], ROWS[index])


@pytest.mark.parametrize("index", [7, -8, np.array([0, 7])])
def test_a_row_that_is_not_there(path, index):
    with pytest.raises(IndexError, match="there are 7"):
        RowFile(path, "float32", ROWS.shape)[index]


def test_it_looks_like_an_array(path):
    rows = RowFile(path, "float32", ROWS.shape)
    assert (len(rows), rows.ndim, rows.nbytes) == (7, 3, ROWS.nbytes)
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    np.testing.assert_array_equal(np.asarray(rows, np.float64), ROWS)


def test_half_precision_of_brains(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    ROWS.astype(bfloat16).tofile(tmp_path / "b.bin")
    rows = RowFile(tmp_path / "b.bin", bfloat16, ROWS.shape)
    np.testing.assert_array_equal(rows[np.array([6, 1])].astype(np.float32), ROWS[[6, 1]])


def test_a_file_that_was_cut_short_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "part_0.bin"
    ROWS.tofile(path)
    rows = RowFile(path, "float32", ROWS.shape)
    with path.open("rb+") as file:
        file.truncate(ROWS.nbytes - 4)
    np.testing.assert_array_equal(rows[5], ROWS[5])
    with pytest.raises(RunError, match=r"part_0\.bin ends too early.*Run again to rebuild it"):
        rows[6]


def test_small_files_are_held_and_large_ones_read_when_asked(path, monkeypatch):
    held = open_rows(path, "float32", ROWS.shape)
    # No memory map: the system kills a process that reads one of a file cut short.
    assert type(held) is np.ndarray
    np.testing.assert_array_equal(held, ROWS)
    monkeypatch.setattr(array_files, "HELD", ROWS.nbytes - 1)
    large = open_rows(path, "float32", ROWS.shape)
    assert isinstance(large, RowFile)
    np.testing.assert_array_equal(large[:], ROWS)


def test_a_checksum_is_that_of_the_whole_file(path, monkeypatch):
    assert checksum(path) == zlib.crc32(ROWS.tobytes())
    monkeypatch.setattr(array_files, "_BLOCK", 7)
    assert checksum(path) == zlib.crc32(ROWS.tobytes())


def test_training_on_rows_that_are_read_is_that_on_held_ones(tmp_path, monkeypatch):
    held, read = small_runs.make(), small_runs.make()
    small_runs.run(held, cache_dir=tmp_path / "held")
    opened = []

    def reading(*args):
        opened.append(RowFile(*args))
        return opened[-1]

    monkeypatch.setattr("unfreeze.core.prefix_cache.open_rows", reading)
    small_runs.run(read, cache_dir=tmp_path / "read")
    assert opened
    small_runs.assert_same_weights(held, read)
