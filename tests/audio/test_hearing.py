from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.hearing import HIGHEST_HEARD, HighEnergy
from unfreeze.audio.rules import examine


def share(samples: np.ndarray, rate: int, pieces: int = 1) -> float:
    energy = HighEnergy(rate)
    for piece in np.array_split(samples.astype(np.float32), pieces):
        energy.add(piece)
    return energy.share


def tone(hertz: float, rate: int, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def noise(rate: int, level: float = 0.01) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=level, size=rate)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 96_000, 192_000, 384_000])
def test_a_tone_is_heard_or_not(rate: int) -> None:
    for hertz in (100, 1_000, 7_000):
        assert share(tone(hertz, rate), rate) < 0.9
    for hertz in (7_900, 0.3 * rate, 0.45 * rate):
        if HIGHEST_HEARD + 300 <= hertz < rate / 2:
            assert share(tone(hertz, rate), rate) > 0.98
            assert share(tone(hertz, rate) + 0.7, rate, pieces=3) > 0.98


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.2, 1.0), (0.05, 1.0)])
@pytest.mark.parametrize("pieces", [1, 7])
def test_the_share_is_that_of_the_energies(low: float, high: float, pieces: int) -> None:
    rate = 96_000
    both = tone(1_000, rate, level=low) + tone(30_000, rate, level=high)
    expected = high**2 / (low**2 + high**2)
    if expected > 0.5:
        assert share(both, rate, pieces) == pytest.approx(expected, abs=0.01)
    else:
        assert share(both, rate, pieces) < 0.95


def test_white_noise_by_its_band() -> None:
    assert share(noise(192_000), 192_000) == pytest.approx(1 - 7_500 / 96_000, abs=0.01)
    assert share(noise(44_100), 44_100) == pytest.approx(1 - 7_500 / 22_050, abs=0.02)


@pytest.mark.parametrize("rate", [8_000, 11_127, 15_000])
def test_nothing_of_a_low_rate_is_lost(rate: int) -> None:
    assert share(noise(rate), rate) == 0


def test_no_sound_has_no_share() -> None:
    assert share(np.zeros(1_000), 96_000) == 0
    assert share(np.full(1_000, 0.5), 96_000) == 0
    assert share(np.zeros(0), 96_000) == 0
    assert share(np.array([0.3]), 96_000) == 0
    assert not share(np.full(9_000, np.nan), 96_000) > 0.95


def judged(path: Path, samples: np.ndarray, rate: int) -> list[tuple[str, str]]:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    facts, problems = examine(path, path)
    assert facts is not None
    with Decoders() as decoders:
        assert decoders.examine([(path, path)]) == [(facts, problems)]
    return [(p.rule, p.cause) for p in problems]


def test_a_bat_is_not_heard(tmp_path: Path) -> None:
    rate = 192_000
    bat = tone(40_000, rate) + noise(rate)
    for name in ("bat.wav", "bat.flac"):
        ((rule, cause),) = judged(tmp_path / name, bat, rate)
        assert rule == "too_high"
        assert cause.startswith("99.9 % of its energy lies above 7.5 kHz")
    # Time expanded, it is.
    assert judged(tmp_path / "slow.wav", bat, rate // 10) == []


def test_what_is_hardly_there_is_not_judged(tmp_path: Path) -> None:
    rate = 96_000
    assert judged(tmp_path / "faint.wav", tone(30_000, rate, level=9e-4), rate) == []
    assert judged(tmp_path / "soft.wav", tone(30_000, rate, level=2e-3), rate) != []


def test_ordinary_recordings_are_heard(tmp_path: Path, shared_data: Path) -> None:
    assert judged(tmp_path / "wind.wav", tone(90, 96_000) + noise(96_000), 96_000) == []
    paths = sorted((shared_data / "animal-sounds").rglob("*.wav"))
    warned = [
        p.name for p in paths for q in examine(p, p)[1] if q.rule in ("too_high", "cancelled")
    ]
    assert len(paths) > 300
    assert warned == []
