"""The digest of a set of tensors, and what is refused."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.backbones.weight_files import WeightsSpec, check_tensors, tensor_digest
from unfreeze.errors import WeightsError

TENSORS = {
    "conv/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "conv/bias": np.array([1.0, -2.0, 0.5], dtype=np.float32),
}
SPEC = WeightsSpec(
    "toy", {name: a.shape for name, a in TENSORS.items()}, tensor_digest(TENSORS), ()
)


def test_digest_ignores_order_and_memory_layout():
    other = {name: np.asfortranarray(TENSORS[name]) for name in reversed(TENSORS)}
    assert tensor_digest(other) == SPEC.sha256
    check_tensors(other, SPEC, "here")


@given(st.sampled_from(sorted(TENSORS)), st.integers(0, 2), st.integers(0, 31))
def test_one_changed_bit_changes_the_digest(name, position, bit):
    changed = {key: array.copy() for key, array in TENSORS.items()}
    changed[name].reshape(-1).view(np.uint32)[position] ^= np.uint32(1 << bit)
    assert tensor_digest(changed) != SPEC.sha256
    with pytest.raises(WeightsError, match=r"found    sha256 .*\n  expected sha256 "):
        check_tensors(changed, SPEC, "here")


def test_names_and_shapes_count_too():
    renamed = {"conv/bias": TENSORS["conv/bias"], "conv/kernal": TENSORS["conv/kernel"]}
    assert tensor_digest(renamed) != SPEC.sha256
    flat = TENSORS | {"conv/kernel": TENSORS["conv/kernel"].reshape(3, 2)}
    assert tensor_digest(flat) != SPEC.sha256


def test_faults_are_named():
    with pytest.raises(WeightsError, match=r"^FILE .*conv/bias is missing; conv/other is unknown"):
        check_tensors(
            {"conv/kernel": TENSORS["conv/kernel"], "conv/other": np.ones(1)}, SPEC, "FILE"
        )
    flat = TENSORS | {"conv/kernel": np.zeros(6, np.float32)}
    with pytest.raises(WeightsError, match=r"conv/kernel has shape \(6,\), expected \(2, 3\)"):
        check_tensors(flat, SPEC, "FILE")


def test_variable_name_follows_the_backbone():
    assert dataclasses.replace(SPEC, name="other").env == "UNFREEZE_OTHER_WEIGHTS"
