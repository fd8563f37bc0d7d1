from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.audio.decode import Resampler, decode, decode_blocks
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.mixing import Mixer
from unfreeze.audio.rules import examine
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection.scan import PatchBlock, PatchStream, read_patches

RATE = 16_000


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(scale=level, size=round(seconds * RATE)).astype(np.float32)


def write(path: Path, *channels: np.ndarray, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype=subtype)
    return path


def mixed(*channels: np.ndarray) -> np.ndarray:
    return Mixer(RATE, len(channels)).mix(np.stack(channels, axis=1).astype(np.float32))


@pytest.mark.parametrize("gain", [-0.7, -0.9, -1.0, -1.1, -1.4])
def test_the_louder_channel_stands_for_two_that_cancel(tmp_path: Path, gain: float) -> None:
    wave = noise(2)
    path = write(tmp_path / "a.wav", wave, gain * wave)
    louder = wave if abs(gain) <= 1 else np.float32(gain) * wave
    np.testing.assert_allclose(decode(path), louder, atol=1e-6)
    facts, problems = examine(path, path)
    assert facts is not None
    assert [(p.rule, p.fatal) for p in problems] == [("cancelled", False)]
    assert "in 2.00 of 2.00 s" in problems[0].cause


@pytest.mark.parametrize(
    "other",
    [
        noise(2),
        noise(2, seed=1),
        -0.3 * noise(2),
        0 * noise(2),
        np.roll(noise(2), 7),
        noise(2, seed=1) - 0.6 * noise(2),
    ],
    ids=["same", "unlike", "weaker", "silent", "later", "partly"],
)
def test_others_are_averaged(tmp_path: Path, other: np.ndarray) -> None:
    path = write(tmp_path / "a.wav", noise(2), other)
    np.testing.assert_allclose(decode(path), (noise(2) + other) / 2, atol=1e-7)
    assert examine(path, path)[1] == []


def test_an_offset_hides_nothing() -> None:
    wave = noise(1)
    # The mean is as loud as the channels, and is no sound.
    np.testing.assert_array_equal(mixed(wave + 0.5, -wave + 0.5), wave + np.float32(0.5))
    # Nor do offsets cancel sound that is the same.
    np.testing.assert_allclose(mixed(wave + 3, wave - 3), wave, atol=1e-6)


def test_only_where_they_cancel(tmp_path: Path) -> None:
    wave = noise(4)
    sign = np.where(np.arange(len(wave)) < 3 * RATE, 1, -1)
    path = write(tmp_path / "a.wav", wave, sign * wave)
    np.testing.assert_allclose(decode(path), wave, atol=1e-7)
    ((rule, cause),) = [(p.rule, p.cause) for p in examine(path, path)[1]]
    assert (rule, "in 1.00 of 4.00 s" in cause) == ("cancelled", True)


def test_a_quiet_beginning_does_not_decide() -> None:
    hiss = noise(1, 1, 1e-4), noise(1, 2, 1e-4)
    wave = noise(1)
    found = mixed(np.concatenate([hiss[0], wave]), np.concatenate([hiss[1], -wave]))
    np.testing.assert_array_equal(found[RATE:], wave)
    np.testing.assert_allclose(found[:RATE], (hiss[0] + hiss[1]) / 2, atol=1e-9)


def test_it_does_not_change_sides_for_little() -> None:
    # Now one, now the other is a bit louder: their signs differ, so a change would click.
    wave = noise(2)
    gain = np.repeat([1.0, 0.8] * 4, RATE // 4)
    np.testing.assert_array_equal(mixed(gain * wave, -wave), (gain * wave).astype(np.float32))


def test_digital_silence_stays() -> None:
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(mixed(silence, silence), silence)


@pytest.mark.parametrize("channels", [3, 8])
def test_many_channels(channels: int) -> None:
    waves = [noise(1, seed) for seed in range(channels)]
    np.testing.assert_allclose(mixed(*waves), np.mean(waves, axis=0), atol=1e-7)
    one = [waves[0], *[0 * wave for wave in waves[1:]]]
    np.testing.assert_allclose(mixed(*one), waves[0] / channels, atol=1e-7)
    opposed = [waves[0] * (-1) ** number for number in range(channels - channels % 2)]
    np.testing.assert_array_equal(mixed(*opposed), waves[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1.0, -1.0, -0.8, 0.0, -3.0]), min_size=1, max_size=9), st.data())
def test_cuts_at_sections_change_no_bit(gains: list[float], data: st.DataObject) -> None:
    section = RATE // 4
    wave = noise(len(gains) / 4 + 0.1)
    other = wave * np.resize(np.repeat(gains, section), len(wave))
    samples = np.stack([wave, other], axis=1).astype(np.float32)
    whole = Mixer(RATE, 2).mix(samples)
    mixer = Mixer(RATE, 2)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(gains)))))
    parts = np.split(samples, [section * cut for cut in cuts])
    np.testing.assert_array_equal(np.concatenate([mixer.mix(part) for part in parts]), whole)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_every_reader_takes_the_same(tmp_path: Path, name: str) -> None:
    wave = noise(5)
    sign = np.where(np.arange(len(wave)) // 7_000 % 2, -1, 1)
    path = write(tmp_path / name, wave, sign * wave, subtype="PCM_16")
    expected = decode(path)
    assert expected.std() > 0.08
    for block in (700, 20_000):
        np.testing.assert_array_equal(
            np.concatenate(list(decode_blocks(path, block=block))), expected
        )
    stream = PatchStream(FrontEnd(), 48)
    blocks = [*stream.push(expected), *stream.finish()]
    patches = np.concatenate([block.patches for block in blocks])
    with Decoders() as decoders:
        assert decoders.examine([(path, path)]) == [examine(path, path)]
        with decoders.waveform(path, Resampler(RATE)) as sound:
            np.testing.assert_array_equal(np.concatenate(list(sound.blocks)), expected)
        found = read_patches(path, FrontEnd(), 48, decoders)
        searched = [block.patches for block in found if isinstance(block, PatchBlock)]
        np.testing.assert_array_equal(np.concatenate(searched), patches)


def test_what_is_before_damage_is_mixed_alike(tmp_path: Path) -> None:
    wave = noise(6)
    path = write(tmp_path / "cut.flac", wave, -wave, subtype="PCM_16")
    whole = decode(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for block in (1 << 21, 20_000, 3_000):
        rest = np.concatenate(list(decode_blocks(path, block=block)))
        assert 0.4 * len(whole) < len(rest) < 0.6 * len(whole)
        np.testing.assert_array_equal(rest, whole[: len(rest)])
