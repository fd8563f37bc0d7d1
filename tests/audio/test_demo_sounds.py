from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.demo_sounds import CLASSES, synthesize
from unfreeze.errors import DataError

RATE = 16_000


def clips(label, count=10):
    return [synthesize(label, np.random.default_rng([7, i])) for i in range(count)]


def frames(clip, size=1024, hop=256):
    """(frames, size // 2 + 1) power of windows; a bin is 15.6 Hz wide."""
    windows = np.lib.stride_tricks.sliding_window_view(clip, size)[::hop]
    return np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2


def slope(clip):
    """dB an octave between 100 and 1,600 Hz."""
    power = frames(clip).mean(axis=0)
    octaves = np.geomspace(100, 1600, 9)
    levels = [
        10 * np.log10(power[int(a / 15.625) : int(b / 15.625) + 1].mean())
        for a, b in pairwise(octaves)
    ]
    return np.polyfit(np.log2(octaves[:-1]), levels, 1)[0]


def share(clip, low, high):
    """Share of the power between two frequencies."""
    power = frames(clip).sum(axis=0)
    return power[round(low / 15.625) : round(high / 15.625)].sum() / power.sum()


def onsets(clip):
    """Moments (s) at which the level jumps up."""
    level = np.sqrt(np.convolve(clip.astype(float) ** 2, np.ones(80) / 80, "same")[::80])
    jump = np.flatnonzero((level[1:] > 0.25 * level.max()) & (level[:-1] <= 0.25 * level.max()))
    return jump * 80 / RATE


def test_there_are_twenty_classes_in_order():
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(set(CLASSES))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CLASSES), st.integers(0, 2**32 - 1))
def test_every_clip_is_a_sound_clip(label, seed):
    clip = synthesize(label, np.random.default_rng(seed))
    assert clip.dtype == np.float32
    assert clip.ndim == 1
    assert 1.0 <= len(clip) / RATE <= 3.0
    assert np.isfinite(clip).all()
    assert 10 ** (-24.1 / 20) <= np.abs(clip).max() <= 10 ** (-0.49 / 20)


@pytest.mark.parametrize("label", CLASSES)
def test_the_seed_decides(label):
    first, again, other = (synthesize(label, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("label", CLASSES)
def test_other_rates_keep_the_length(label):
    low, high = (synthesize(label, np.random.default_rng(5), rate) for rate in (16_000, 44_100))
    assert len(high) / 44_100 == pytest.approx(len(low) / 16_000, abs=1e-9)


def test_dial_tone_has_its_two_frequencies():
    for clip in clips("dial_tone"):
        power = np.abs(np.fft.rfft(clip * np.hanning(len(clip)))) ** 2
        hertz = np.fft.rfftfreq(len(clip), 1 / RATE)
        for expected in (350.0, 440.0):
            near = np.abs(hertz - expected) < 40
            peak = hertz[near][power[near].argmax()]
            assert peak == pytest.approx(expected, rel=0.008)
            between = np.abs(hertz - 395) < 20
            assert power[near].max() > 30 * np.median(power[between])


def test_touch_tones_are_keys():
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
    for clip in clips("touch_tones"):
        power = frames(clip)
        loud = power[power.sum(axis=1) > 0.5 * power.sum(axis=1).max()]
        bins = np.arange(power.shape[1]) * RATE / 1024
        for low, high, allowed in ((600, 1050, rows), (1100, 1750, columns)):
            inside = (bins > low) & (bins < high)
            peaks = bins[inside][loud[:, inside].argmax(axis=1)]
            nearest = np.abs(peaks[:, None] - np.array(allowed)).min(axis=1)
            assert np.mean(nearest < 16) > 0.9


@pytest.mark.parametrize(("label", "expected"), [("white", 0), ("pink", -3), ("brown", -6)])
def test_noise_colours_differ_by_their_slope(label, expected):
    # Distance tilts a clip by up to 1.8 dB an octave and the background fills the top
    # of the brown ones, so single clips of neighbours overlap; their middle does not.
    assert np.median([slope(clip) for clip in clips(f"{label}_noise", 20)]) == pytest.approx(
        expected, abs=1.0
    )


@pytest.mark.parametrize(("label", "rises"), [("sweep_up", True), ("sweep_down", False)])
def test_sweeps_go_their_way(label, rises):
    for clip in clips(label):
        peaks = frames(clip)[:, 6:].argmax(axis=1)
        # The jumps back are few; small steps decide.
        steps = np.sign(np.diff(peaks))[np.abs(np.diff(peaks)) < 40]
        assert (steps.sum() > 0) == rises


def test_metronome_is_regular_and_geiger_counter_is_not():
    def unevenness(clip):
        gaps = np.diff(onsets(clip))
        return gaps.std() / gaps.mean() if len(gaps) > 2 else np.nan

    assert np.nanmedian([unevenness(clip) for clip in clips("metronome", 20)]) < 0.15
    assert np.nanmedian([unevenness(clip) for clip in clips("geiger_clicks", 20)]) > 0.5


@pytest.mark.parametrize(
    ("label", "low", "high"),
    [
        ("cricket", 3300, 5700),
        ("engine", 20, 2500),
        ("siren_two_tone", 350, 7000),
        ("siren_wail", 350, 7000),
        ("church_bell", 80, 3000),
        ("morse", 430, 2700),
        ("water_drips", 400, 4000),
    ],
)
def test_sounds_are_where_they_belong(label, low, high):
    assert np.median([share(clip, low, high) for clip in clips(label)]) > 0.7


def test_bell_dies_away_and_dial_tone_does_not():
    def fall(clip):
        level = frames(clip).sum(axis=1)
        return 10 * np.log10(level.max() / np.median(level))

    assert np.median([fall(clip) for clip in clips("glass_ping")]) > 3
    assert np.median([fall(clip) for clip in clips("dial_tone")]) < 1.5


def test_unknown_class_and_low_rate_are_refused():
    with pytest.raises(DataError, match=r"'foghorn'; the demo has alarm_clock, "):
        synthesize("foghorn", np.random.default_rng(0))
    with pytest.raises(DataError, match="8000 Hz is too low"):
        synthesize("rain", np.random.default_rng(0), 8_000)
