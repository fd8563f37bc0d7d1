from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfreeze.audio.rules import Facts, Problem, examine


def judge(path: Path) -> tuple[Facts | None, list[str]]:
    facts, problems = examine(path, Path(path.name))
    assert all(problem.path == Path(path.name) and problem.cause for problem in problems)
    assert (facts is None) == any(problem.fatal for problem in problems)
    return facts, [problem.rule for problem in problems]


def write(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def test_the_facts_of_a_good_file(write_sound) -> None:
    path = write_sound("good.wav", seconds=0.25, rate=44_100, channels=2)
    facts, rules = judge(path)
    assert rules == []
    assert facts is not None
    assert (facts.seconds, facts.sample_rate, facts.channels) == (0.25, 44_100, 2)
    assert len(facts.content) == 64
    # The name is no part of the content.
    assert judge(path.rename(path.with_name("other.wav")))[0] == facts


def test_the_content_is_the_sha256_of_the_bytes(tmp_path: Path, write_sound) -> None:
    path = write_sound("good.wav")
    facts = judge(path)[0]
    assert facts is not None
    path.write_bytes(path.read_bytes() + b"\0")
    again = judge(path)[0]
    assert again is not None
    assert again.content != facts.content


@pytest.mark.parametrize("content", [b"hello world\n" * 40, b"\x00" * 600, b"RIFF\0\0\0\0WAVEjunk"])
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    assert judge(path) == (None, ["unreadable"])


def test_zero_bytes_and_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "zero.wav"
    path.touch()
    assert judge(path) == (None, ["empty"])
    assert judge(write(path, np.zeros(0))) == (None, ["empty"])


def test_missing(tmp_path: Path) -> None:
    assert judge(tmp_path / "absent.wav") == (None, ["missing"])


def test_without_permission(tmp_path: Path, write_sound, monkeypatch) -> None:
    path = write_sound("secret.wav")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, for whom every file is open.
    monkeypatch.setattr(Path, "open", refuse)
    facts, problems = examine(path, path)
    assert facts is None
    assert problems == [
        Problem(path, "unreadable", "it cannot be read: Permission denied", fatal=True)
    ]


def test_not_a_number_anywhere(tmp_path: Path) -> None:
    for position in (0, 7_999):
        samples = np.full(8_000, 0.1)
        samples[position] = np.nan
        assert judge(write(tmp_path / "nan.wav", samples)) == (None, ["non_finite"])
    assert judge(write(tmp_path / "inf.wav", np.full(8_000, np.inf)))[1] == ["non_finite"]


def test_silence(tmp_path: Path) -> None:
    time = np.arange(8_000)
    wave = np.sin(time / 9)
    assert judge(write(tmp_path / "zero.wav", np.zeros(8_000))) == (None, ["silent"])
    assert judge(write(tmp_path / "faint.wav", 0.9e-4 * wave)) == (None, ["silent"])
    assert judge(write(tmp_path / "soft.wav", 1.1e-4 * wave))[1] == []
    # An offset is no sound.
    assert judge(write(tmp_path / "offset.wav", np.full(8_000, 0.5))) == (None, ["silent"])
    # Channels that cancel each other are no silence.
    opposed = np.stack([wave, -wave], axis=1)
    facts, rules = judge(write(tmp_path / "opposed.wav", opposed))
    assert facts is not None
    assert rules == ["cancelled"]
    faint = write(tmp_path / "faint_opposed.wav", 0.9e-4 * opposed)
    assert judge(faint) == (None, ["silent", "cancelled"])
    eight = write(tmp_path / "eight.wav", np.zeros(8_000), subtype="PCM_U8")
    assert judge(eight) == (None, ["silent"])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_shorter_than_one_window_is_too_short(tmp_path: Path, rate: int) -> None:
    limit = int(np.ceil(0.025 * rate))
    wave = np.sin(np.arange(limit) / 3)
    assert judge(write(tmp_path / "a.wav", wave, rate))[1] == []
    assert judge(write(tmp_path / "b.wav", wave[:-1], rate)) == (None, ["too_short"])
    assert judge(write(tmp_path / "c.wav", wave[:1], rate)) == (None, ["too_short"])


@pytest.mark.parametrize(
    ("part", "rules", "used"),
    [
        (1.0, [], True),
        (0.9, ["truncated"], True),
        (0.6, ["truncated"], True),
        # What is there is used, as long as there is more than a scrap.
        (0.4, ["truncated"], True),
        (0.05, ["truncated"], False),
    ],
)
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_truncation(write_sound, ending: str, part: float, rules: list[str], used: bool) -> None:
    path = write_sound(f"cut.{ending}", seconds=6.0)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    facts, found = judge(path)
    assert found == rules
    assert (facts is not None) == used
    if facts is not None:
        assert facts.seconds == pytest.approx(6 * part, rel=0.1 if part < 0.5 else 0.05)


def test_integers_stored_as_floats_are_too_loud(tmp_path: Path) -> None:
    path = write(tmp_path / "loud.wav", 20_000 * np.sin(np.arange(8_000) / 9))
    facts, problems = examine(path, Path("loud.wav"))
    assert facts is not None
    assert problems == [
        Problem(Path("loud.wav"), "too_loud", problems[0].cause, fatal=False),
    ]
    assert "20000" in problems[0].cause
