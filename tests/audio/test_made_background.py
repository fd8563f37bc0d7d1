"""Each kind of computed background is what its name says, and never the same twice."""

import numpy as np
import pytest

from unfreeze.audio.made_background import KINDS, RATE, make_background


def share_below(sound, hertz):
    """The share of the power below a frequency."""
    power = np.abs(np.fft.rfft(sound.astype(np.float64))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    return power[frequency < hertz].sum() / power.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_fits_its_range_and_follows_from_the_seed(kind):
    levels = []
    for seed in range(6):
        sound = make_background(kind, 2.88, np.random.default_rng(seed))
        assert sound.shape == (46_080,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() <= 1
        again = make_background(kind, 2.88, np.random.default_rng(seed))
        np.testing.assert_array_equal(sound, again)
        levels.append(float(np.sqrt(np.mean(sound**2))))
    assert len(set(levels)) == 6
    if kind == "silence":
        # A recorder's last bits: between a third of a step of 16 bits and ten steps.
        assert min(levels) > 0.9e-5
        assert max(levels) < 1.7e-4
    else:
        # Clipping lowers the loudest ones.
        assert min(levels) > 1.9e-4
        assert max(levels) < 0.17


def test_wind_is_low_and_hiss_is_narrow():
    rng = np.random.default_rng(1)
    wind = [share_below(make_background("wind", 3, rng), 2000) for _ in range(10)]
    assert np.mean(wind) > 0.9
    for _ in range(10):
        hiss = make_background("hiss", 3, rng).astype(np.float64)
        power = np.abs(np.fft.rfft(hiss)) ** 2
        frequency = np.fft.rfftfreq(len(hiss), 1 / RATE)
        middle = (frequency * power).sum() / power.sum()
        within = power[(frequency > middle / 12) & (frequency < middle * 12)].sum()
        assert within / power.sum() > 0.95


def test_hum_and_babble_have_harmonics_and_noise_has_none():
    """The largest correlation with itself, 2.5 to 40 ms later: 1 for what repeats."""

    def repeats(kind, seed):
        sound = make_background(kind, 1, np.random.default_rng(seed)).astype(np.float64)
        part = sound[:8000] - sound[:8000].mean()
        whole = np.correlate(part, part, "full")[len(part) - 1 :]
        return (whole / whole[0])[int(0.0025 * RATE) : int(0.04 * RATE)].max()

    assert np.median([repeats("hum", seed) for seed in range(9)]) > 0.6
    assert np.median([repeats("clicks", seed) for seed in range(9)]) < 0.35
