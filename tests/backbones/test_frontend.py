"""The arithmetic of padding, frames and patches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.backbones.frontend import EncodedWindows, FrontEnd

FRONT = FrontEnd()


def test_known_lengths():
    assert FRONT.padded_samples(0) == 15_600
    assert FRONT.padded_samples(15_600) == 15_600
    assert FRONT.padded_samples(15_601) == 15_600 + 7_680
    assert FRONT.frames(1) == 96
    assert FRONT.frames(15_601) == 144
    assert [FRONT.patches(n) for n in (0, 15_600, 15_601, 23_280, 23_281)] == [1, 1, 2, 2, 3]


@given(st.integers(0, 2**31))
def test_padding_keeps_every_sample_and_fills_the_last_patch(samples):
    padded = FRONT.padded_samples(samples)
    assert samples <= padded < max(samples, FRONT.min_samples) + FRONT.patch_hop * FRONT.hop
    assert (padded - FRONT.min_samples) % (FRONT.patch_hop * FRONT.hop) == 0
    assert FRONT.padded_samples(padded) == padded
    last = (FRONT.patches(samples) - 1) * FRONT.patch_hop + FRONT.patch_frames
    assert last == FRONT.frames(samples)


def test_slowed_down_ten_times_a_second_is_ten():
    slow = FrontEnd().slowed(10)
    assert (slow.sample_rate, slow.low_hz, slow.high_hz) == (160_000, 1_250, 75_000)
    assert slow.slow_down == 10
    # The same samples make the same patches, in a tenth of the time.
    assert slow.patches(160_000) == FrontEnd().patches(160_000)
    assert slow.hop / slow.sample_rate == pytest.approx(0.001)


def test_windows_of_a_model_need_the_model():
    front = EncodedWindows.of(FrontEnd(), lambda patches: patches[:, :5], 5, "digest")
    assert (front.patch_shape, front.patches(48_000)) == ((5,), FrontEnd().patches(48_000))
    assert front.identity["inner"] == FrontEnd().identity
    with pytest.raises(TypeError, match="inner"):
        EncodedWindows()
