"""Copies of recordings: found by their samples, whatever their name, level, cut and format."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.manifest import Clip
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.pipeline.copied_clips import COPY, alike, correlation, find_copies

RATE = 16_000


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype("f4")


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 7_000),
    st.integers(0, 7_000),
    st.floats(0.01, 5),
    st.booleans(),
)
def test_a_copy_is_one_whatever_its_level_sign_start_and_end(cut, shorter, level, turned):
    sound = noise(0)
    copy = level * (-1 if turned else 1) * sound[cut : len(sound) - shorter]
    assert correlation(sound, copy) == pytest.approx(1, abs=1e-3)
    assert correlation(copy, sound) == pytest.approx(1, abs=1e-3)


def test_other_sounds_and_silence_are_no_copies():
    assert correlation(noise(0), noise(1)) < 0.1
    assert correlation(noise(0), np.zeros(100, "f4")) == 0
    assert correlation(np.zeros(0, "f4"), noise(0)) == 0
    # A stretch of less than half of the shorter does not make a copy.
    assert correlation(noise(0), np.concatenate([noise(1), noise(0)[:6_000]])) < 0.5
    assert COPY > 0.9


def clip(path: Path) -> Clip:
    return Clip(path, "a", path.name, None, 1.0, RATE, 1, path.name)


def test_copies_are_found_in_other_groups_and_sets_are_whole(tmp_path: Path) -> None:
    sounds = {"a.wav": noise(1), "b.wav": noise(2), "c.wav": noise(3), "d.wav": noise(4)}
    sounds |= {"a.flac": noise(1)[2_000:] / 2, "a-again.wav": -noise(1), "b-twin.wav": noise(2)}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / name, samples, RATE)
    (tmp_path / "gone.wav").write_bytes(b"no sound")
    clips = [clip(tmp_path / name) for name in (*sounds, "gone.wav")]
    features = np.ones((len(clips), 3)) + 0.01 * np.random.default_rng(0).normal(
        size=(len(clips), 3)
    )
    groups = np.arange(len(clips))
    groups[6] = groups[1]  # the twin of b is of its group
    seen = []
    everything = dict(zip([0, 4, 5], [[9, 0, 0], [9, 0.1, 0], [9, 0, 0.1]], strict=True))
    for number, values in everything.items():
        features[number] = values
    found = find_copies(clips, features, groups, FrontEnd(), lambda *at: seen.append(at))
    assert found == [(0, 4, 5)]
    assert seen[-1][0] == seen[-1][1] == len(seen)
    # Sounds in recordings are not compared.
    parts = [replace(one, start=0.0, end=1.0) for one in clips]
    assert find_copies(parts, features, groups, FrontEnd()) == []


def test_only_what_is_alike_is_compared():
    features = np.array([[1, 0], [1, 0.1], [1, -0.1], [-1, 0], [0, 0]], float)
    assert alike(features, np.arange(5)).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert alike(features, np.array([0, 0, 1, 2, 3])).tolist() == [[0, 2], [1, 2]]
    assert alike(features[:1], np.zeros(1)).shape == (0, 2)
