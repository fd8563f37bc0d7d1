import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.demo_sounds import (
    colored,
    filtered,
    gated,
    in_a_room,
    mix,
    poisson,
    rate,
    ring,
    time_axis,
    tone,
    wander,
)

SECOND = time_axis(1.0, 16_000)


def spectrum(signal):
    """Power by whole Hz, for a signal of one second."""
    return np.abs(np.fft.rfft(signal)) ** 2


def slope(noise, low, high):
    """dB an octave between two frequencies."""
    power = spectrum(noise)
    bands = [(f, f * 2**0.5) for f in np.geomspace(low, high / 2**0.5, 12)]
    levels = [10 * np.log10(power[int(a) : int(b)].mean()) for a, b in bands]
    return np.polyfit(np.log2([a for a, _ in bands]), levels, 1)[0]


def test_time_axis_is_even_and_starts_at_zero():
    assert (len(SECOND), SECOND[0], rate(SECOND)) == (16_000, 0.0, pytest.approx(16_000))
    assert len(time_axis(1.234, 16_000)) == 24 * 800
    assert rate(time_axis(2.0, 44_100)) == pytest.approx(44_100)


def test_tone_has_its_harmonics_and_no_others():
    power = spectrum(tone(SECOND, 1000.0, [1.0, 0.0, 0.5]))
    assert set(np.argsort(power)[-2:]) == {1000, 3000}
    assert power[3000] / power[1000] == pytest.approx(0.25, rel=1e-6)


def test_tone_leaves_out_what_would_fold_back():
    power = spectrum(tone(SECOND, 5000.0, [1.0, 1.0, 1.0]))
    assert power.argmax() == 5000
    assert np.delete(power, 5000).max() < 1e-12 * power[5000]


def test_a_glide_has_no_steps():
    steep = tone(SECOND, np.where(SECOND < 0.5, 300.0, 500.0))
    assert np.abs(np.diff(steep)).max() <= 2 * np.pi * 500 / 16_000


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_noise_has_its_colour(power):
    noise = colored(np.random.default_rng(1), SECOND, power)
    assert slope(noise, 60, 7000) == pytest.approx(-10 * np.log10(2) * power, abs=0.4)
    assert noise.std() == pytest.approx(1.0)


def test_filter_keeps_its_band():
    white = colored(np.random.default_rng(2), SECOND, 0.0)
    gain = spectrum(filtered(white, SECOND, 500, 2000)) / spectrum(white)
    assert gain[1000] == pytest.approx(1 / (1 + 1 / 16) ** 2, rel=0.01)
    # Second order: 12 dB an octave outside.
    assert 10 * np.log10(gain[125] / gain[62]) == pytest.approx(12, abs=0.5)
    assert 10 * np.log10(gain[7000] / gain[3500]) == pytest.approx(-12, abs=0.8)


def test_ring_falls_as_told_and_starts_as_told():
    sound = ring(SECOND, np.array([0.25]), np.array([0.5]), [(1000.0, 2.0, 0.1)])
    assert np.all(sound[:4000] == 0)
    assert np.abs(sound[4000:4016]).max() == pytest.approx(1.0, abs=0.02)
    # A whole number of periods later: 1/e.
    assert np.abs(sound[5600:5616]).max() == pytest.approx(np.exp(-1), abs=0.01)


def test_ring_adds_strikes_up():
    moments, levels = np.array([0.1, 0.2, 0.99]), np.array([1.0, 0.5, 0.7])
    partials = [(700.0, 1.0, 0.2), (1500.0, 0.3, 0.05)]
    single = [ring(SECOND, moments[i : i + 1], levels[i : i + 1], partials) for i in range(3)]
    assert np.allclose(ring(SECOND, moments, levels, partials), mix(single))


def test_gate_is_open_inside_only():
    gate = gated(SECOND, [(0.1, 0.2), (0.5, 0.6)], ramp=0.01)
    assert np.all(gate[(SECOND > 0.11) & (SECOND < 0.19)] == 1)
    assert np.all(gate[(SECOND > 0.2) & (SECOND < 0.5)] == 0)
    assert gate[1680] == pytest.approx(0.5)  # 5 ms into the ramp
    assert not gated(SECOND, []).any()


def test_poisson_has_its_rate():
    rng = np.random.default_rng(3)
    counts = [len(poisson(rng, SECOND, 20.0)) for _ in range(300)]
    assert np.mean(counts) == pytest.approx(20, abs=1)
    assert np.var(counts) == pytest.approx(20, rel=0.25)
    assert len(poisson(rng, SECOND, 1e-9)) == 1


def test_wander_stays_near_one():
    factor = wander(np.random.default_rng(4), time_axis(60.0, 16_000), 0.1, 5.0)
    assert factor.mean() == pytest.approx(1.0, abs=0.02)
    assert 0.05 < factor.std() < 0.12


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_room_keeps_length_and_bounds_the_peak(seed):
    rng = np.random.default_rng(seed)
    wet = in_a_room(rng, SECOND, tone(SECOND, 440.0))
    assert wet.shape == SECOND.shape
    assert 10 ** (-24 / 20) <= np.abs(wet).max() <= 10 ** (-0.5 / 20)
    assert spectrum(wet)[100:].argmax() + 100 == 440
