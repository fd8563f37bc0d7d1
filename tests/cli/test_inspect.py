import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from unfreeze.cli.inspect import inspect
from unfreeze.errors import DataError

app = typer.Typer()
app.command()(inspect)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty clips of each of two classes, 0.5 s, three speakers."""
    rng = np.random.default_rng(0)
    for label, rate, channels in (("cat", 16_000, 1), ("dog", 8_000, 2)):
        (tmp_path / label).mkdir()
        for number in range(20):
            path = tmp_path / label / f"{'abc'[number % 3]}_{number:02}.wav"
            soundfile.write(path, rng.normal(scale=0.1, size=(rate // 2, channels)), rate)
    return tmp_path


def test_json_has_everything(data: Path) -> None:
    (data / "dog/readme.txt").write_text("hello")
    (data / "dog/b_01.wav").write_bytes(b"")
    report = json.loads(run(data, "--json"))
    assert report["data"] == str(data)
    assert (report["clips"], report["groups"], report["bad"]) == (39, 39, 1)
    assert report["hours"] == pytest.approx(39 * 0.5 / 3600)
    assert report["sample_rates"] == {"8000": 19, "16000": 20}
    assert report["channels"] == {"1": 20, "2": 19}
    assert report["classes"]["cat"] == {
        "clips": 20,
        "seconds": pytest.approx(10),
        "train": 14,
        "validation": 3,
        "test": 3,
    }
    assert sum(part["clips"] for part in report["split"].values()) == 39
    assert [(p["path"], p["rule"], p["fatal"]) for p in report["problems"]] == [
        ("dog/b_01.wav", "empty", True),
        ("dog/readme.txt", "not_audio", False),
    ]
    assert report["notes"] == []


def test_groups_and_seed(data: Path) -> None:
    def split(seed: int) -> dict[str, dict[str, object]]:
        report = json.loads(run(data, "--json", "--group-regex", r"^(\w)_", "--seed", seed))
        assert report["groups"] == 3
        return report["split"]

    parts = [split(seed) for seed in range(6)]
    assert all({part["groups"] for part in p.values()} == {1} for p in parts)
    # Each part is one speaker; which one is up to the seed.
    for p in parts:
        assert all(len({Path(f).name[0] for f in part["files"]}) == 1 for part in p.values())
    assert split(0) == parts[0]
    assert len({p["test"]["files"][0] for p in parts}) > 1


def test_tables_for_people(data: Path) -> None:
    for number in range(8):
        (data / f"dog/[b]odd{number}.txt").write_text("hello")
    output = run(data)
    assert "40 clips in 40 groups, 2 classes" in output
    assert "8000 (20 clips), 16000 (20 clips)" in output
    assert "0 of 40 recordings left out." in output
    assert "not_audio (warning, 8):" in output
    assert "dog/[b]odd0.txt: it is not a recording and is ignored" in output
    assert "and 2 more; --json lists all" in output
    row = next(line for line in output.splitlines() if " cat " in line)
    assert row.split("│")[2:6] == ["    20 ", "     0.2 ", "    14 ", "          3 "]


def test_problems_are_shown_before_the_verdict(data: Path) -> None:
    (data / "dog/b_01.wav").write_text("no sound")
    assert run(data)
    for options in (["--strict"], ["--max-bad", "0.01"]):
        result = CliRunner().invoke(app, [str(data), *options])
        assert isinstance(result.exception, DataError)
        assert "1 of 40 recordings" in str(result.exception)
        assert "unreadable (left out, 1):" in result.stdout
        assert "dog/b_01.wav: it holds text, not sound" in result.stdout


def test_problems_are_shown_before_a_split_that_cannot_be_made(data: Path) -> None:
    (data / "dog/broken.wav").write_bytes(b"RIFF")
    words = [str(data), "--group-regex", "(cat|dog)/"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, DataError)
    assert "cannot be divided" in str(result.exception)
    assert "dog/broken.wav" in result.stdout


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(tmp_path / "absent")


def test_the_import_is_light() -> None:
    code = (
        "import sys, unfreeze.cli.inspect; print({'keras', 'numpy', 'soundfile'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_spoken_digits(shared_data: Path) -> None:
    report = json.loads(run(shared_data / "spoken-digits", "--json"))
    assert (report["clips"], report["groups"], report["bad"]) == (960, 6, 0)
    assert [report["split"][part]["clips"] for part in ("train", "validation", "test")] == [
        640,
        160,
        160,
    ]
