"""`unfreeze listen` on sound from a file, and as a process of its own, fed through a pipe."""

import contextlib
import json
import signal
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import forked
import toy
from toy_detection import scene_samples
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError

SCENE = (scene_samples() * 32767).astype("<i2")


def begin(*words):
    process = forked.start("from unfreeze.cli import main; main()", "listen", *words)
    assert process.stderr.readline().startswith(b"Listening to standard input")
    return process


def tones(output):
    """The events of tones, once they are over."""
    rows = [json.loads(line) for line in output.decode().splitlines()]
    return [row for row in rows if row["label"] != "noise" and row["event"] == "end"]


def line_of(process, **wanted):
    """The next line with these values."""
    for line in process.stdout:
        row = json.loads(line)
        if wanted.items() <= row.items():
            return row
    raise AssertionError(f"no line has {wanted}")


@pytest.fixture
def listen(toy_run, tmp_path, monkeypatch, capfd):
    """Listen in this process to bytes on standard input; what was printed and said."""

    def call(content, *words):
        (tmp_path / "stdin").write_bytes(content)
        with (tmp_path / "stdin").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            app(["listen", str(toy_run), "-", *words], standalone_mode=False)
        return capfd.readouterr()

    return call


@pytest.mark.on_each_backend
def test_a_wav_file_on_standard_input(listen, scene):
    out, said = listen(scene.read_bytes(), "--format", "jsonl")
    high, low = tones(out.encode())
    assert (high["label"], low["label"]) == ("high", "low")
    assert high["start"] == pytest.approx(5, abs=0.5)
    assert low["end"] == pytest.approx(14.5, abs=0.5)
    assert "in 20.0 s of sound" in said.splitlines()[-1]


def test_bare_samples_at_another_rate(listen):
    # Every other sample: the high tone of 3 kHz is still there.
    out, _ = listen(SCENE[::2].tobytes(), "--rate", "8000")
    rows = [line.split() for line in out.splitlines()]
    high = [row for row in rows if row[2] == "high"]
    # The start of each event, then the event.
    (begun, over), low = high[:2], [row for row in rows if row[2] == "low"]
    assert begun[1] == "begins"
    assert over[:1] == begun[:1]
    assert over[1].startswith("0:00:0")
    assert len(low) == 2


def test_short_events_are_not_told_and_near_ones_are_one(listen):
    sound = SCENE.tobytes()
    every = tones(listen(sound, "--format", "jsonl")[0].encode())
    # They are found to last for 2.7 and 2.2 s.
    out, said = listen(sound, "--format", "jsonl", "--min-duration", "2.5")
    rows = [json.loads(line) for line in out.splitlines()]
    assert "low" not in {row["label"] for row in rows}
    assert [row["event"] for row in rows if row["label"] == "high"] == ["start", "end"]
    assert tones(out.encode()) == every[:1]
    ends = [row for row in rows if row["event"] == "end"]
    assert said.splitlines()[-1].startswith(f"{len(ends)} event")
    out, _ = listen(sound * 2, "--format", "jsonl", "--max-gap", "18")
    assert [row["label"] for row in tones(out.encode())] == ["high", "low"]


def test_starts_and_ends_are_shown_soon_and_ctrl_c_ends_with_the_open_one_and_a_summary(toy_run):
    process = begin(toy_run, "-", "--format", "jsonl")
    # The pipe stays open: only what has been heard tells what has begun or is over.
    giving_up = threading.Timer(120, process.kill)
    giving_up.start()
    # Noise, and a high tone from 1 s on that is not over.
    process.stdin.write(SCENE[4 * toy.RATE : 6 * toy.RATE].tobytes())
    process.stdin.flush()
    start = line_of(process, event="start", label="high")
    assert start == {
        "event": "start", "start": pytest.approx(1, abs=0.3), "label": "high",
        "score": start["score"],
    }  # fmt: skip
    # The rest of the tone, until 4 s, and a second and a half of noise.
    process.stdin.write(SCENE[6 * toy.RATE : round(9.5 * toy.RATE)].tobytes())
    process.stdin.flush()
    high = line_of(process, event="end", label="high")
    giving_up.cancel()
    assert high["start"] == start["start"]
    assert high["end"] == pytest.approx(4, abs=0.3)
    # Noise, and a low tone from 6.8 s that is not over.
    process.stdin.write(SCENE[round(10.7 * toy.RATE) : 14 * toy.RATE].tobytes())
    process.stdin.flush()
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert tones(out)[-1] | {"score": 0} == {
        "event": "end", "start": pytest.approx(6.8, abs=0.3), "end": 8.8, "label": "low",
        "score": 0,
    }  # fmt: skip
    assert b"Traceback" not in said
    assert b" events in 8.8 s of sound" in said


@pytest.mark.slow
def test_starts_are_told_within_a_second_and_ends_soon_after(toy_run):
    """Sound at the speed at which it plays; the printed lines are timed, on an idle machine."""
    process = begin(toy_run, "-", "--format", "jsonl")
    began, step = time.monotonic(), toy.RATE // 50
    sound = SCENE[4 * toy.RATE : 17 * toy.RATE]
    late = {"start": [], "end": []}

    def read():
        for line in process.stdout:
            row = json.loads(line)
            late[row["event"]].append(time.monotonic() - began - row[row["event"]])

    reader = threading.Thread(target=read)
    reader.start()
    for count in range(0, len(sound), step):
        # By the clock: sleeps that last too long must not add up.
        time.sleep(max(began + (count + step) / toy.RATE - time.monotonic(), 0))
        process.stdin.write(sound[count : count + step].tobytes())
        process.stdin.flush()
    process.stdin.close()
    reader.join(30)
    said = process.stderr.read().decode()
    assert said.startswith("note: this model was trained without background")
    assert process.wait(30) == 0
    assert len(late["start"]) == len(late["end"]) >= 4
    # Shown with -s: the numbers of docs/detection.md.
    print({kind: [round(x, 3) for x in seconds] for kind, seconds in late.items()}, said)
    # The first sound is there when it begins: a window, and the time to compute.
    assert np.median(late["start"][1:]) < 1.0
    # The last one ends with the sound and waits for nothing.
    assert np.median(late["end"][:-1]) < 1.6
    assert min(late["end"]) > -0.02


def test_a_reader_that_goes_ends_it(toy_run):
    process = begin(toy_run, "-")
    process.stdout.close()
    # It may be gone before all of this is written.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(SCENE.tobytes())
        process.stdin.close()
    assert process.wait(30) == 1
    assert b"Traceback" not in process.stderr.read()


def test_sound_that_is_none_is_an_error(listen, capfd):
    with pytest.raises(UnfreezeError, match=r"^no sound arrived on standard input; send 16-bit"):
        listen(b"")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mic"], "'mic' is not a source"),
        (["-", "--device", "1"], "--device is for a microphone"),
        (["--rate", "8000"], "--rate is for raw samples"),
        (["-", "--format", "csv"], "give one of table, jsonl"),
        (["-", "--min-duration", "-1"], "a minimum duration of -1 s cannot"),
    ],
)
def test_options_that_do_not_fit_are_refused(toy_run, words, message):
    done = CliRunner().invoke(app, ["listen", str(toy_run), *words])
    assert isinstance(done.exception, UnfreezeError)
    assert message in str(done.exception)


def test_a_microphone_without_its_library_names_the_cure(toy_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = CliRunner().invoke(app, ["listen", str(toy_run)])
    assert isinstance(done.exception, UnfreezeError)
    assert 'pip install "unfreeze[live]"' in str(done.exception)


def test_a_microphone_that_is_not_there_is_refused_by_name(toy_run):
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"no sounddevice with PortAudio: {error}")
    done = CliRunner().invoke(app, ["listen", str(toy_run), "--device", "no such device"])
    assert isinstance(done.exception, UnfreezeError)
    assert "no microphone 'no such device'" in str(done.exception)
