"""Reading pinned variables with numpy alone."""

import hashlib

import numpy as np
import pytest

from unfreeze.backbones.weight_files import read_variables
from unfreeze.errors import WeightsError


def test_offsets_and_shapes(tmp_path):
    data = np.arange(10, dtype="<f4").tobytes()
    file = tmp_path / "variables.data-00000-of-00001"
    file.write_bytes(data)
    layout = [("a", 8, (2, 3)), ("b", 32, (2,))]
    found = read_variables(file, layout, hashlib.sha256(data).hexdigest())
    np.testing.assert_array_equal(found["a"], [[2, 3, 4], [5, 6, 7]])
    np.testing.assert_array_equal(found["b"], [8, 9])
    assert found["a"].dtype == np.float32


def test_other_bytes_are_refused(tmp_path):
    file = tmp_path / "variables.data-00000-of-00001"
    file.write_bytes(b"\0" * 64)
    with pytest.raises(
        WeightsError, match=f"found    sha256 [0-9a-f]{{64}}\n  expected sha256 {'0' * 64}"
    ):
        read_variables(file, [("a", 0, (4,))], "0" * 64)
