"""Copies of patches in noise: exact powers, the same each time, read in any order."""

import hashlib

import numpy as np
import pytest

from unfreeze.audio import noisy_patches
from unfreeze.audio.noisy_patches import NoisyView, make_bank
from unfreeze.backbones.frontend import FrontEnd, NetworkOutputs, SampleWindows

FRONT = FrontEnd()


class Stored:
    """Stands for a `PatchView`."""

    def __init__(self, patches, clip):
        self.patches, self.clip = patches, clip
        self.shape, self.dtype = patches.shape, patches.dtype
        self.fingerprint = hashlib.sha256(patches.tobytes()).hexdigest()

    def __len__(self):
        return len(self.patches)

    def __getitem__(self, rows):
        return self.patches[rows]


@pytest.fixture(scope="module")
def bank():
    return make_bank(FRONT, 2, np.random.default_rng(0))


@pytest.fixture(scope="module")
def stored():
    rng = np.random.default_rng(1)
    magnitudes = rng.uniform(0, 1, (9, 96, 64)) * 10 ** rng.uniform(-2, 1, (9, 1, 1))
    patches = np.log(magnitudes + FRONT.log_offset).astype(np.float32)
    return Stored(patches, np.array([2, 2, 2, 5, 5, 7, 7, 7, 7]))


def view_of(stored, bank, seed=3, copies=2):
    return NoisyView(stored, bank, np.random.default_rng(seed), FRONT, 10, copies)


def test_each_kind_of_background_is_there(bank):
    assert len(bank.kinds) == 9
    assert np.bincount(bank.kind).tolist() == [2] * 9
    assert len(bank.clip) == len(bank.patches) == 18 * 5
    less = bank.without(("wind", "hum"))
    assert "wind" not in less.kinds
    assert np.bincount(less.kind).tolist() == [2] * 7
    assert np.unique(less.clip).tolist() == list(range(14))
    kept = bank.patches[np.isin(bank.kind[bank.clip], [0, 1, 3, 4, 6, 7, 8])]
    np.testing.assert_array_equal(less.patches, kept)


def test_clips_copies_and_background_follow_each_other(stored, bank):
    view = view_of(stored, bank)
    assert view.shape == (9 + 18 + 90, 96, 64)
    np.testing.assert_array_equal(view[:9], stored.patches)
    np.testing.assert_array_equal(view[27:], bank.patches)
    assert view.clip[:9].tolist() == stored.clip.tolist()
    # Six copies of three clips, from number 10 on; then the background.
    assert np.unique(view.clip[9:27]).tolist() == list(range(10, 16))
    assert view.source[:6].tolist() == [2, 5, 7, 2, 5, 7]
    assert view.clip[9:18].tolist() == [10, 10, 10, 11, 11, 12, 12, 12, 12]
    assert view.clip[27:].tolist() == (16 + bank.clip).tolist()
    assert set(view.source[6:].tolist()) == {-1}


def test_it_reads_like_an_array(stored, bank):
    view = view_of(stored, bank)
    whole = np.asarray(view)
    rows = np.random.default_rng(0).permutation(len(view))
    np.testing.assert_array_equal(view[rows], whole[rows])
    np.testing.assert_array_equal(view[12], whole[12])
    np.testing.assert_array_equal(view[5:40:3], whole[5:40:3])
    np.testing.assert_array_equal(view[rows > 50], whole[rows > 50])
    assert np.isfinite(whole).all()


def test_noise_is_so_far_below_the_clip_as_was_drawn(stored, bank, monkeypatch):
    """With noise of one known power, and no change of level, the powers can be counted."""
    monkeypatch.setattr(noisy_patches, "_LEVEL", (0.0, 0.0))
    for above in (0.0, 10.0, 20.0):
        monkeypatch.setattr(noisy_patches, "_ABOVE", (above, above))
        view = view_of(stored, bank, copies=1)

        def power(patches):
            magnitude = np.exp(patches.astype(np.float64)) - FRONT.log_offset
            return (magnitude**2).mean(axis=(1, 2))

        copies, own = power(view[9:18]), power(stored.patches)
        for clip in (2, 5, 7):
            mine = stored.clip == clip
            share = (copies[mine] - own[mine]).mean() / own[mine].mean()
            assert share == pytest.approx(10 ** (-above / 10), rel=0.02)


def test_the_seed_decides_and_the_fingerprint_tells(stored, bank):
    one, same, other = (view_of(stored, bank, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one[:], same[:])
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not np.array_equal(one[9:27], other[9:27])


def test_of_very_many_patches_there_are_fewer_copies(stored, bank, monkeypatch):
    monkeypatch.setattr(noisy_patches, "_MOST", 12)
    assert len(view_of(stored, bank)) == 9 + 9 + 90
    monkeypatch.setattr(noisy_patches, "_MOST", 8)
    assert len(view_of(stored, bank)) == 9 + 90


SAMPLES = SampleWindows(
    16_000, 8_000, 4_000, patch_frames=1, patch_hop=1, min_samples=8_000, smallest_hop=800
)


def test_samples_are_added_up_as_far_above_the_noise_as_was_drawn():
    bank = make_bank(SAMPLES, 1, np.random.default_rng(0))
    assert bank.patches.shape[1:] == (8_000,)
    tones = np.sin(np.arange(8_000) * np.array([[0.1], [0.2], [0.3]])).astype(np.float32)
    stored = Stored(tones, np.array([0, 1, 2]))
    view = NoisyView(stored, bank, np.random.default_rng(0), SAMPLES, 3, 2)
    for row, mixed in enumerate(view[3:9]):
        sound, noise = tones[row % 3], bank.patches[view._noise[row]]
        # What is left less the sound is the noise, at one loudness.
        level = np.exp(view._level[row])
        rest = mixed / level - sound
        gain = rest @ noise / (noise @ noise)
        np.testing.assert_allclose(rest, gain * noise, 0, 1e-5)
        above = 10 * np.log10(np.square(sound).mean() / np.square(gain * noise).mean())
        assert above == pytest.approx(view._above[row] * 20 / np.log(10), abs=0.01)


def test_a_networks_numbers_are_never_mixed():
    numbers = np.random.default_rng(0).normal(0, 1e4, (3, 7)).astype(np.float32)
    bank = noisy_patches.Bank(numbers, np.arange(3), np.zeros(3, int), ("hiss",))
    stored = Stored(2 * numbers, np.array([0, 1, 2]))
    view = NoisyView(stored, bank, np.random.default_rng(0), NetworkOutputs(), 3, 0)
    np.testing.assert_array_equal(view[:], np.concatenate([2 * numbers, numbers]))
    assert view.source.tolist() == [-1, -1, -1]
    assert view.clip.tolist() == [0, 1, 2, 3, 4, 5]
