"""`report.html` of a run: its numbers, its clips, its limits, and names that would run."""

import base64
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile

import toy
from html_reader import Reader, content
from reporting import EVIL, EVIL_FILE, rows_of, write_run
from unfreeze.errors import RunError
from unfreeze.pipeline import run_folder
from unfreeze.report import run_report
from unfreeze.report.html_page import LIMIT
from unfreeze.report.run_report import write_run_report


@pytest.fixture(scope="module")
def page(made):
    html = write_run_report(made / "run").read_text("utf-8")
    metrics = json.loads((made / "run" / "metrics.json").read_text())
    return html, Reader(html), metrics


def test_the_headline_is_what_metrics_say(page):
    _, reader, metrics = page
    scores = metrics["test"]
    right = int(np.trace(scores["confusion"]))
    assert 0 < right < scores["clips"] == 12
    low, high = scores["intervals"]["accuracy"]
    assert f"{right} of 12 test clips are right" in reader.words
    assert f"Probably between {100 * low:.0f} % and {100 * high:.0f} % on others" in reader.words
    assert "Always guessing one class would be right for 33 % of them." in reader.words
    assert f"calibration error{scores['calibration_error']:.3f}" in reader.words


def test_tables_are_what_metrics_say(page):
    _, reader, metrics = page
    scores = metrics["test"]
    tables = {
        name: [row for row in reader.rows if row and row[0] == name] for name in scores["labels"]
    }
    for label, row in scores["per_class"].items():
        confusions, by_class, thresholds, clips = tables[label]
        own = scores["confusion"][scores["labels"].index(label)]
        assert confusions[1:-1] == [str(n) if n else "" for n in own]
        assert by_class[1] == str(row["support"])
        for cell, name in zip(by_class[2:5], ("precision", "recall", "f1"), strict=True):
            assert cell.startswith("–" if row[name] is None else f"{row[name]:.2f}")
        assert thresholds[1] == f"{metrics['threshold_choices'][label]['threshold']:.3f}"
        assert clips[1:4] == ["4", "4", "8"]
    assert reader.row("all clips")[1:4] == ["12", "12", "24"]
    calibration = metrics["calibration"]
    assert reader.row("test clips")[1] == f"{calibration['test']['error']:.3f}"
    assert reader.row("head")[1:] == ["1", "0.5", "1", "0 exactly", "as meant"]
    assert "block3 knows most." in reader.words
    assert "Mind <this>." in reader.words
    assert "low/<b>.wav: is silent" in reader.words


def test_each_cell_opens_its_clips(page):
    _, reader, metrics = page
    confusion = np.array(metrics["test"]["confusion"])
    links = {a["data-cell"]: a for a in reader.of("a") if "data-cell" in a}
    figures = [f["data-cells"].split() for f in reader.of("figure") if "data-cells" in f]
    assert len(figures) == confusion.sum()
    places = {span["id"] for span in reader.of("span") if "id" in span}
    for row, column in np.argwhere(confusion):
        cell, count = f"c{row}-{column}", confusion[row, column]
        assert int(links[cell]["data-count"]) == count
        assert links[cell]["aria-label"].startswith(f"{count}: ")
        assert sum(cell in cells for cells in figures) == count
        # Without the script, the link leads to the first of them.
        assert links[cell]["href"] == f"#{cell}"
        assert cell in places
    assert len(links) == (confusion > 0).sum()


def test_clips_are_seen_and_heard(page, made):
    _, reader, _ = page
    pictures, sounds = reader.of("img"), reader.of("audio")
    assert len(pictures) == len(sounds) == 12
    assert all(picture["alt"].startswith("Spectrogram of ") for picture in pictures)
    wave, rate = soundfile.read(io.BytesIO(content(sounds[0]["src"])[1]))
    assert rate == toy.RATE
    assert np.abs(wave).max() > 0.5
    wrong = [
        row for row in rows_of(made / "run" / "predictions.csv") if row["label"] != row["predicted"]
    ]
    start, end = reader.words.index("Mistakes The most"), reader.words.index("Right, but least")
    mistakes = reader.words[start:end]
    assert wrong
    for row in wrong:
        assert row["path"] in mistakes
        assert f"{row['label']}, taken for {row['predicted']}" in mistakes
        assert f"{float(row['score']):.2f}" in mistakes


def test_names_are_text_and_only_our_script_runs(page):
    html, reader, _ = page
    assert EVIL in reader.words
    assert EVIL_FILE in reader.words
    assert EVIL not in html
    assert "<script>alert" not in html
    assert [a for a in reader.of("img") if a.get("onerror")] == []
    style, script = (
        re.search(rf"<{tag}>(.*?)</{tag}>", html, re.S)[1] for tag in ("style", "script")
    )
    policy = next(m["content"] for m in reader.of("meta") if m.get("http-equiv"))
    for name, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    # Neither would be allowed by the policy.
    assert [a for _, a in reader.tags if "style" in a or any(k.startswith("on") for k in a)] == []
    assert re.findall(r"(?:src|href)='(?!data:|#)", html) == []


def test_it_can_be_read_by_its_structure(page):
    _, reader, _ = page
    assert [tag for tag, _ in reader.tags if tag in ("h1", "main", "header", "footer", "nav")] == [
        *("header", "h1", "nav", "main", "footer")
    ]
    sections = {a["id"] for a in reader.of("section")}
    linked = {a["href"][1:] for a in reader.of("a") if not a.get("data-cell")}
    assert linked == {*sections, "main"}
    heads = [a.get("scope") for tag, a in reader.tags if tag == "th"]
    assert set(heads) == {"row", "col"}
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_it_is_the_same_each_time(own):
    first = write_run_report(own / "run").read_bytes()
    assert write_run_report(own / "run").read_bytes() == first


def test_missing_recordings_are_said_in_place(own):
    lost = rows_of(own / "run" / "predictions.csv")[0]["path"]
    (own / "data" / lost).unlink()
    reader = Reader(write_run_report(own / "run").read_text("utf-8"))
    assert len(reader.of("img")) == 11
    assert f"The recording is no longer there.{lost}" in reader.words
    shutil.rmtree(own / "data")
    reader = Reader(write_run_report(own / "run").read_text("utf-8"))
    assert reader.of("img") == []
    assert f"The recordings are no longer in {own / 'data'}" in reader.words
    assert len([f for f in reader.of("figure") if "data-cells" in f]) == 12


def test_a_run_of_an_earlier_version_is_reported_as_far_as_its_files_go(own):
    for name in ("predictions.csv", "notes.json", "audit.json", "history.csv"):
        (own / "run" / name).unlink()
    reader = Reader(write_run_report(own / "run").read_text("utf-8"))
    assert "of 12 test clips are right" in reader.words
    assert "This run has no predictions.csv" in reader.words
    assert "files left outnot recorded" in reader.words
    assert [a for a in reader.of("a") if "data-cell" in a] == []
    assert {a["id"] for a in reader.of("section")} >= {
        "confusions",
        "classes",
        "data",
        "model-card",
    }


def test_without_test_clips_the_validation_clips_are_shown_with_a_warning(made, tmp_path):
    write_run(tmp_path / "run", made / "data", held="validation")
    words = Reader(write_run_report(tmp_path / "run").read_text("utf-8")).words
    assert "of 12 validation clips are right" in words
    assert "There are no test clips" in words


def test_without_any_held_out_clips_it_says_so(own):
    scores = run_folder.read_scores(own / "run")
    nothing = {"test": None, "validation": None, "thresholds": None}
    run_folder.write_scores(own / "run", {**nothing, "background": scores["background"]})
    (own / "run" / "predictions.csv").unlink()
    reader = Reader(write_run_report(own / "run").read_text("utf-8"))
    assert "No clips were held out, so nothing was tested." in reader.words
    assert {a["id"] for a in reader.of("section")} >= {"training", "data", "settings"}


def test_it_stays_below_the_limit_with_many_clips(tmp_path, monkeypatch):
    assert run_report.LIMIT == LIMIT == 5_000_000
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (data / label).mkdir(parents=True)
        for number in range(50):
            noise = rng.normal(0, 0.1, 2 * toy.RATE)
            soundfile.write(data / label / f"{number}.wav", noise, toy.RATE)
    write_run(tmp_path / "run", data, wrong=0.5)
    monkeypatch.setattr(run_report, "LIMIT", 400_000)
    file = write_run_report(tmp_path / "run")
    assert 250_000 < file.stat().st_size < 400_000
    reader = Reader(file.read_text("utf-8"))
    assert "Not shown, to keep the page small." in reader.words
    assert 3 < len(reader.of("img")) < 50
    # All mistakes are there, with or without a picture.
    wrong = [
        r for r in rows_of(tmp_path / "run" / "predictions.csv") if r["label"] != r["predicted"]
    ]
    mistakes = reader.words[reader.words.index("Mistakes The most") :]
    assert all(row["path"] in mistakes for row in wrong)


def test_several_labels(tmp_path):
    data = toy.write_mixed(tmp_path / "data", clips=24)
    metrics = write_run(tmp_path / "run", data, several=True)
    reader = Reader(write_run_report(tmp_path / "run").read_text("utf-8"))
    scores = metrics["test"]
    assert f"{scores['mean_average_precision']:.2f}" in reader.words
    assert "Mean average precision on 12 test clips" in reader.words
    rows = rows_of(tmp_path / "run" / "predictions.csv")
    figures = [f["data-cells"].split() for f in reader.of("figure") if "data-cells" in f]
    for n, label in enumerate(scores["labels"]):
        row = next(row for row in reader.rows if row[0] == label)
        heard = [label in r["label"].split(";") for r in rows]
        named = [label in r["predicted"].split(";") for r in rows]
        pairs = list(zip(heard, named, strict=True))
        counts = [pairs.count(pair) for pair in ((True, True), (True, False), (False, True))]
        assert row[1:5] == [str(sum(heard)), *map(str, counts)]
        shown = [sum(f"c{n}-{k}" in c for c in figures) for k in ("found", "missed", "wrong")]
        assert shown == counts
        # The scores of the class are those of the same decisions.
        assert scores["per_class"][label]["recall"] == pytest.approx(counts[0] / sum(heard))
    assert "wrongly named" in reader.words


def test_of_very_many_classes_pairs_are_listed(tmp_path):
    for number in range(62):
        for take in range(2):
            wave = 0.1 * np.sin(np.arange(4000) * (0.1 + 0.02 * number + 0.001 * take))
            (tmp_path / "data" / f"c{number:02}").mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "data" / f"c{number:02}" / f"{take}.wav", wave, toy.RATE)
    metrics = write_run(tmp_path / "run", tmp_path / "data")
    reader = Reader(write_run_report(tmp_path / "run").read_text("utf-8"))
    confusion = np.array(metrics["test"]["confusion"])
    pairs = [row for row in reader.rows if len(row) == 4 and row[2:] == ["1", "1"]]
    assert len(pairs) == (confusion - np.diag(confusion.diagonal())).sum() > 5


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (("predictions.csv", r"^low/", "../low/"), "leads out of"),
        (("predictions.csv", r"0\.\d+\n", "nan\n"), "damaged"),
        (("predictions.csv", r",low,", ",owl,"), "does not fit"),
        (("history.csv", r"^stage", "step"), "do not fit each other"),
        (("metrics.json", r'"confusion"', '"other"'), "do not fit each other"),
        (("audit.json", r"\{", "["), "cannot be read"),
    ],
)
def test_damaged_files_are_refused(own, damage, said):
    name, pattern, by = damage
    file = own / "run" / name
    file.write_text(re.sub(pattern, by, file.read_text(), flags=re.M))
    with pytest.raises(RunError, match=said):
        write_run_report(own / "run")


def test_an_unfinished_run_is_refused(own):
    (own / "run" / "metrics.json").unlink()
    with pytest.raises(RunError, match="was interrupted"):
        write_run_report(own / "run")
