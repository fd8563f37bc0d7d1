import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.logmel import FrameMaker, log_mel_frames
from unfreeze.backbones.frontend import FrontEnd

FRONT = FrontEnd()
MAKER = FrameMaker(FRONT)


@given(st.lists(st.integers(0, 50_000), max_size=8), st.sampled_from([1, 50, 128]))
@settings(max_examples=25, deadline=None)
def test_frames_do_not_depend_on_their_company(lengths: list[int], chunk: int) -> None:
    rng = np.random.default_rng(sum(lengths))
    waves = [rng.uniform(-1, 1, n).astype(np.float32) for n in lengths]
    alone = [log_mel_frames(wave, FRONT) for wave in waves]
    expected = np.concatenate([np.empty((0, 64), np.float32), *alone])
    for maker in (FrameMaker(FRONT, chunk), MAKER):
        np.testing.assert_array_equal(maker(waves), expected)


@pytest.mark.parametrize(("samples", "own"), [(100, 1), (160, 1), (320, 2), (9_000, 57)])
def test_frames_of_padding_are_those_of_zeros(samples: int, own: int) -> None:
    frames = log_mel_frames(np.ones(samples, np.float32), FRONT)
    assert np.all(frames[own:] == np.log(np.float32(0.001)))
    assert np.all(frames[own - 1] > frames[own])
    padded = np.zeros(15_600, np.float32)
    padded[:samples] = 1
    np.testing.assert_array_equal(frames, log_mel_frames(padded, FRONT))


def test_the_work_space_keeps_nothing() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 9_000).astype(np.float32)
    first = MAKER([wave])
    MAKER([np.full(40_000, 0.9, np.float32)])
    np.testing.assert_array_equal(MAKER([wave]), first)


@pytest.mark.parametrize("shape", [(), (2, 100)])
def test_a_waveform_has_one_axis(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one axis"):
        log_mel_frames(np.zeros(shape, np.float32), FRONT)


def test_slowed_down_the_samples_give_the_same_frames():
    wave = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    slow = FrontEnd().slowed(10)
    np.testing.assert_array_equal(log_mel_frames(wave, slow), log_mel_frames(wave, FrontEnd()))
