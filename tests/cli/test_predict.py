"""`unfreeze predict` where it finds events: options, formats, folders, going on."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import forked
import toy
from power_cut import Disk, restore
from toy_detection import scene_samples
from unfreeze.cli.app import app
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.thresholds import count


def call(*words):
    return CliRunner().invoke(app, ["predict", *map(str, words)])


@pytest.fixture
def folder(scene, tmp_path):
    """Three recordings, one in a folder of its own."""
    place = tmp_path / "field"
    (place / "site").mkdir(parents=True)
    shutil.copy(scene, place / "a.wav")
    shutil.copy(scene, place / "site" / "c.wav")
    soundfile.write(place / "b.flac", scene_samples()[: 9 * toy.RATE], toy.RATE)
    return place


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def tones(rows):
    return [(row["file"], row["label"]) for row in rows if row["label"] != "noise"]


def test_events_are_found_when_they_are_asked_for_or_a_folder_is_given(toy_run, scene, folder):
    whole = call(toy_run, scene)
    assert whole.output.startswith(f"{scene}: noise")
    for words in (["--events"], ["--min-score", "0.5"], ["--no-merge"], ["--format", "table"]):
        found = call(toy_run, scene, *words)
        assert found.exit_code == 0, found.output
        assert " events\n" in found.output
    assert f"{folder}/a.wav: " in call(toy_run, folder).output


def test_digital_silence_is_none_of_the_classes(toy_run, tmp_path):
    silence = tmp_path / "nothing.wav"
    soundfile.write(silence, [0.0] * toy.RATE, toy.RATE)
    assert call(toy_run, silence).output.startswith(f"{silence}: digital silence: ")
    (row,) = json.loads(call(toy_run, silence, "--json").stdout)
    assert row["heard"] == []
    assert len(row["classes"]) == 3


def test_what_is_wrong_with_a_file_is_a_warning(toy_run, scene, tmp_path):
    path = tmp_path / "power-cut.wav"
    content = bytearray(scene.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    said = f"warning: {path}: the header says 0.00 s, the file holds 20.00 s; all of it is used\n"
    assert call(toy_run, path).stderr == said
    found = call(toy_run, path, "--format", "csv")
    assert said in found.stderr
    assert tones(rows_of(found.stdout))
    (row,) = json.loads(call(toy_run, path, "--json").stdout)
    assert row["warnings"] == [said.partition("wav: ")[2].strip()]
    (row,) = json.loads(call(toy_run, scene, "--json").stdout)
    assert row["warnings"] == []


def test_a_model_without_background_and_a_long_recording_are_said(toy_run, scene, tmp_path):
    found = call(toy_run, scene, "--events", "--format", "csv")
    assert found.stderr.count("note: this model was trained without background") == 1
    assert "without --no-gate" in found.stderr
    assert "note" not in found.stdout
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(scene_samples()[: 20 * toy.RATE], 4), toy.RATE)
    said = call(toy_run, path).stderr
    assert said.startswith(f"note: {path} lasts 80 s, and these are its classes on average")
    assert "--events" in said
    assert call(toy_run, scene).stderr == ""


def test_a_wish_chooses_thresholds_and_says_what_it_costs(toy_run, scene, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(toy_run, run / "model.keras")
    labels = ("high", "low", "noise")
    table = np.eye(3)[np.arange(60) % 3]
    table[30:] = 0
    peaks = 0.85 * table
    peaks[30:34, 0], peaks[:3, 1] = 0.9, 0.95
    counts = count(labels, table, peaks, np.full(60, 120.0), 30)
    run_folder.write_config(run, {"labels": list(labels)})
    run_folder.write_scores(run, {"threshold_counts": counts.as_plain()})
    found = call(run, scene, "--events", "--max-false-alarms", "0")
    # Above the alarms there is no high tone among the counted sounds.
    said = (
        "note: thresholds for at most 0 false alarms an hour: on the sounds held out in training, "
        "67% of the sounds are found and there are 0 false alarms in an hour of background "
        "(0 to 3.69, 95 %)"
    )
    assert said in found.stderr
    found = call(run, scene, "--precision", "0.99")
    assert found.exit_code == 0, found.output
    said = "note: low cannot have a precision of 0.99: its most precise threshold has 0.83"
    assert said in found.stderr
    listed = call(run, scene, "--format", "csv", "--min-score", "0.5").stdout
    assert len(rows_of(listed)) >= len(rows_of(call(run, scene, "--format", "csv").stdout)) > 0


def test_csv_of_a_folder_in_order(toy_run, folder):
    done = call(toy_run, folder, "--format", "csv")
    rows = rows_of(done.stdout)
    a, b, c = (str(folder / name) for name in ("a.wav", "b.flac", "site/c.wav"))
    assert tones(rows) == [(a, "high"), (a, "low"), (b, "high")]
    assert float(rows[1]["start"]) == pytest.approx(5, abs=0.5)
    deep = rows_of(call(toy_run, folder, "--recursive", "--format", "csv").stdout)
    assert tones(deep) == [*tones(rows), (c, "high"), (c, "low")]


def test_jsonl_is_for_programs(toy_run, scene):
    lines = call(toy_run, scene, "--format", "jsonl").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["label"] for row in rows if row["label"] != "noise"] == ["high", "low"]
    assert set(rows[0]) == {"file", "start", "end", "label", "score"}


REFUSED = [
    (["--format", "xls"], "There is no format 'xls': give one of table, csv"),
    (["--window", "1"], r"give 0.96 or a multiple"),
    (["--hop", "0.5001"], "hop of 0.5001"),
    (["--min-score", "2"], "above 0 and at most 1"),
    (["--precision", "1.5"], "A precision of 1.5 cannot be promised"),
    (["--max-false-alarms", "-1"], "-1 false alarms an hour cannot be wished for"),
    (["--precision", "0.9", "--max-false-alarms", "1"], "both wished for: leave out one"),
    (
        ["--precision", "0.9", "--min-score", "0.5"],
        "A minimum score and a precision of 0.9",
    ),
    (["--precision", "0.9"], "What each threshold does is not known of this model"),
    (["--min-duration", "-1"], "a minimum duration of -1 s cannot be used"),
    (["--max-gap", "nan"], "a maximum gap of nan s cannot"),
    (["--max-gap", "1", "--no-merge"], "--no-merge (merge=False) lists each window by itself"),
    (["--events", "--top", "2"], "--top is for the classes"),
    (["--events", "--json"], "use --format jsonl"),
    (["--overwrite"], "give --out, too"),
    (["--format", "table", "--out", "{tmp}/x.txt"], "A table is only printed"),
    (["--format", "csv", "--out", "{tmp}/thesis.txt"], "was not written by a search"),
    (["{tmp}/field", "--format", "raven"], "are 3: give a folder with --out"),
    (["{tmp}/field", "--format", "raven", "--out", "{tmp}/one.txt"], "give a folder with --out"),
    (["{tmp}/field/site", "{tmp}/same", "--format", "csv", "--out", "{tmp}/o"], "would both have"),
    (["{tmp}/none.wav", "--events"], "none.wav does not exist"),
    (["{tmp}", "--events"], "add --recursive for those in its subfolders"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_work_is_refused_and_nothing_written(
    toy_run, scene, folder, tmp_path, words, message
):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "same").mkdir()
    shutil.copy(scene, tmp_path / "same" / "c.wav")
    before = sorted(tmp_path.rglob("*"))
    done = call(toy_run, scene, *[word.format(tmp=tmp_path) for word in words])
    assert isinstance(done.exception, UnfreezeError), done.output
    assert message in str(done.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_results_has_a_file_a_recording(toy_run, folder, tmp_path):
    out = tmp_path / "found"
    done = call(toy_run, folder, "-r", "--format", "raven", "--out", out)
    assert done.exit_code == 0, done.output
    assert "3 recordings" in done.stderr
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.name.startswith(".")}
    assert names == {
        "a.wav.selections.txt", "b.flac.selections.txt", "site", "site/c.wav.selections.txt",
        "unfreeze-events.jsonl",
    }  # fmt: skip
    rows = list(csv.DictReader((out / "a.wav.selections.txt").open(), delimiter="\t"))
    assert [row["Class"] for row in rows if row["Class"] != "noise"] == ["high", "low"]
    # Another format needs no new search, which the journal would show.
    journal = (out / "unfreeze-events.jsonl").read_bytes()
    again = call(toy_run, folder, "-r", "--format", "audacity", "--out", out)
    assert "3 of 3 recordings are finished already" in again.stderr
    assert (out / "unfreeze-events.jsonl").read_bytes() == journal
    labels = (out / "site" / "c.wav.labels.txt").read_text().splitlines()
    assert [line.split("\t")[2] for line in labels] == [
        row["Class"] for row in csv.DictReader((out / "a.wav.selections.txt").open(),
                                               delimiter="\t")
    ]  # fmt: skip


def test_a_second_run_does_the_rest_and_other_settings_are_refused(toy_run, folder, tmp_path):
    out = tmp_path / "events.csv"
    words = (toy_run, folder, "--recursive", "--format", "csv", "--out", out)
    (folder / "bad.wav").write_text("no sound")
    first = call(*words)
    assert first.exit_code == 1
    assert first.stderr.count("error: ") == 1
    assert "bad.wav" in first.stderr
    found = rows_of(out.read_text())
    assert len(tones(found)) == 5

    shutil.copy(folder / "a.wav", folder / "bad.wav")
    second = call(*words)
    assert second.exit_code == 0
    assert "3 of 4 recordings are finished already" in second.stderr
    assert "1 recording, " in second.stderr
    assert len(tones(rows_of(out.read_text()))) == 7

    changed = call(*words, "--hop", "0.24")
    assert "hop was 0.48 and is 0.24" in str(changed.exception)
    assert "--overwrite" in str(changed.exception)
    # A journal from before there was such an option is one without it.
    head = json.loads((tmp_path / "events.csv.unfreeze-events.jsonl").read_text().splitlines()[0])
    assert not {"min_duration", "max_gap"} & set(head["settings"])
    longer = call(*words, "--min-duration", "2.4", "--max-gap", "0.5")
    assert "min_duration was None and is 2.4; max_gap was None and is 0.5" in str(longer.exception)
    anew = call(*words, "--hop", "0.24", "--overwrite")
    assert anew.exit_code == 0
    assert "4 recordings" in anew.stderr


def test_short_events_are_left_out_and_near_ones_are_one(toy_run, scene):
    def found(*words):
        rows = rows_of(call(toy_run, scene, "--format", "csv", *words).stdout)
        return [(row["label"], round(float(row["end"]) - float(row["start"]), 1)) for row in rows]

    every = found()
    assert [label for label, _ in every] == ["noise", "high", "noise", "low", "noise"]
    assert found("--min-duration", "2.8") == [row for row in every if row[1] >= 2.8]
    assert [label for label, _ in found("--max-gap", "2.9")] == ["noise", "high", "noise", "low"]


def test_two_searches_at_once_into_one_place_are_refused(toy_run, scene, tmp_path):
    import filelock

    with filelock.FileLock(tmp_path / ".e.csv.unfreeze-events.jsonl.lock"):
        done = call(toy_run, scene, "--format", "csv", "--out", tmp_path / "e.csv")
    assert "Another process is writing" in str(done.exception)


# From outside, a signal on a busy machine may come when all is done.
KILLED_AT_A_LINE = """
import os, signal
from unfreeze.cli import main
from unfreeze.detection.journal import Journal

add = Journal.add

def and_die(self, *args):
    add(self, *args)
    if len(self) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = and_die
main()
"""


def test_a_search_that_was_killed_goes_on(toy_run, tmp_path):
    place = tmp_path / "many"
    place.mkdir()
    for number in range(7):
        soundfile.write(place / f"{number}.wav", scene_samples(), toy.RATE)
    out, journal = tmp_path / "e.csv", tmp_path / "e.csv.unfreeze-events.jsonl"
    words = [str(w) for w in ("predict", toy_run, place, "--format", "csv", "--out", out)]
    code, _, _ = forked.run(KILLED_AT_A_LINE, *words)
    assert code == -signal.SIGKILL
    done = journal.read_bytes().count(b"\n") - 1
    assert done == 4
    assert not out.exists()
    went_on = CliRunner().invoke(app, words)
    assert f"{done} of 7 recordings are finished already" in went_on.stderr
    found = rows_of(out.read_text())
    assert [row["label"] for row in found if row["label"] != "noise"] == ["high", "low"] * 7


# From outside, a signal on a busy machine may come when all is done.
STOPPED_AT_A_RESULT = """
import os, pathlib, signal
from unfreeze.cli import main

replace = pathlib.Path.replace

def and_stop(self, target):
    done = replace(self, target)
    if str(target).endswith(".csv"):
        os.kill(os.getpid(), signal.SIGINT)
    return done

pathlib.Path.replace = and_stop
main()
"""


def test_ctrl_c_ends_with_one_message_and_keeps_what_is_done(toy_run, tmp_path):
    place = tmp_path / "many"
    place.mkdir()
    for number in range(7):
        soundfile.write(place / f"{number}.wav", scene_samples(), toy.RATE)
    out = tmp_path / "out"
    words = ["predict", toy_run, place, "--format", "csv", "--out", out]
    code, _, said = forked.run(STOPPED_AT_A_RESULT, *words)
    assert code == 130
    assert "Traceback" not in said
    assert "recordings are left; repeat the command to resume\n" in said
    results = [p for p in out.iterdir() if p.suffix == ".csv"]
    assert 1 <= len(results) < 7
    assert not [p for p in out.iterdir() if p.name.startswith(".partial")]


def test_names_that_are_no_utf_8_are_shown_with_escapes(toy_run, scene, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff.wav")
    shutil.copy(scene, odd)
    done = call(toy_run, odd, "--format", "jsonl")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[0])["file"].endswith("odd \\xff.wav")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the test disk needs it")
def test_after_a_power_cut_it_goes_on_and_takes_nothing_old_for_its_own(toy_run, scene, tmp_path):
    place = tmp_path / "whole"
    (place / "field").mkdir(parents=True)
    for name in "abc":
        shutil.copy(scene, place / "field" / f"{name}.wav")

    def search(place, *words):
        out = place / "found"
        done = call(toy_run, tmp_path / "whole" / "field", "--out", out, "--format", "csv", *words)
        assert done.exit_code == 0, done.output
        return {p.name: p.read_bytes() for p in out.glob("*.csv")}

    before = search(place)
    disk = Disk(place)
    with disk.watched():
        after = search(place, "--overwrite", "--no-merge")
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in after)
    for number, (moment, picture) in enumerate(disk.pictures):
        if b'"merge": true' in picture["found/unfreeze-events.jsonl"]:
            continue  # cut before the new search began
        left = restore(picture, tmp_path / str(number))
        assert search(left, "--no-merge") == after, moment
        assert not list((left / "found").glob(".partial-*"))
