"""Frames and patches of a stream are those of the whole waveform, however it is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.logmel import log_mel_frames, patch_starts
from unfreeze.backbones.frontend import FrontEnd, SampleWindows
from unfreeze.detection.scan import FrameStream, PatchBlock, PatchStream

FRONT = FrontEnd()
SOUND = np.random.default_rng(0).normal(scale=0.1, size=80_000).astype(np.float32)


def pieces(sound, cuts):
    return np.split(sound, sorted(min(cut, len(sound)) for cut in cuts))


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, len(SOUND)),
    cuts=st.lists(st.integers(0, len(SOUND)), max_size=12),
)
def test_frames_of_a_stream_are_those_of_the_whole_to_the_bit(length, cuts):
    sound, stream = SOUND[:length], FrameStream(FRONT)
    frames = [stream.push(piece) for piece in pieces(sound, cuts)]
    found = np.concatenate([*frames, stream.finish()])
    np.testing.assert_array_equal(found, log_mel_frames(sound, FRONT))
    assert (stream.samples, stream.frames) == (length, FRONT.frames(length))


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(1, len(SOUND)),
    cuts=st.lists(st.integers(0, len(SOUND)), max_size=8),
    hop=st.sampled_from([1, 7, 12, 48, 95, 96]),
)
def test_patches_cover_every_sample_at_any_hop(length, cuts, hop):
    sound, stream = SOUND[:length], PatchStream(FRONT, hop)
    blocks = [block for piece in pieces(sound, cuts) for block in stream.push(piece)]
    blocks += stream.finish()
    assert all(1 <= len(block.starts) <= 256 for block in blocks)
    patches = np.concatenate([block.patches for block in blocks])
    starts = np.concatenate([block.starts for block in blocks])
    ends = np.concatenate([block.ends for block in blocks])
    np.testing.assert_allclose(starts, np.arange(len(starts)) * hop * 0.01, atol=1e-9)
    assert starts[0] == 0.0
    assert np.all(ends > starts)
    # The window of a patch's last frame reaches 15 ms beyond the patch.
    assert ends[-1] == pytest.approx(length / 16_000, abs=0.015 + 1e-9)
    assert ends[-1] <= length / 16_000
    for patch, start in zip(patches[::9], starts[::9], strict=True):
        # A patch depends on its own samples only: that many, from its start.
        first = round(start * 16_000)
        alone = log_mel_frames(np.pad(sound[first : first + 15_600], (0, 15_600))[:15_600], FRONT)
        np.testing.assert_array_equal(patch, alone)


def test_at_the_models_own_hop_the_patches_are_those_of_prediction():
    stream = PatchStream(FRONT, FRONT.patch_hop)
    blocks = [*stream.push(SOUND[:50_001]), *stream.push(SOUND[50_001:]), *stream.finish()]
    frames = log_mel_frames(SOUND, FRONT)
    rows = patch_starts(len(frames), FRONT)[:, None] + np.arange(96)
    np.testing.assert_array_equal(np.concatenate([b.patches for b in blocks]), frames[rows])


def test_no_sound_gives_no_patch():
    stream = PatchStream(FRONT, 48)
    assert [*stream.push(SOUND[:0]), *stream.finish()] == []


def test_samples_are_silent_only_where_not_one_differs_from_0():
    front = SampleWindows(100, 40, 20, patch_frames=1, patch_hop=1, min_samples=40, smallest_hop=10)
    patches = np.zeros((2, 40), np.float32)
    patches[1, 7] = 5e-5
    block = PatchBlock(patches, np.arange(2.0), np.arange(2.0) + 1)
    assert block.silent(front).tolist() == [True, False]
