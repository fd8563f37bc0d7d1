"""The report of a comparison: its numbers are those of `comparison.json`."""

import json

import numpy as np
import pytest

from comparing import record
from html_reader import Reader
from unfreeze.compare import comparison_folder
from unfreeze.compare.comparison import write_report
from unfreeze.compare.summary import summarize
from unfreeze.core.yaml_file import dump
from unfreeze.errors import RunError
from unfreeze.pipeline.run_folder import REPORT
from unfreeze.report.comparison_report import CONFIG, RESULT, RUNS, write_comparison_report

GOOD, BAD = "probe", "<b>bad</b>"


def write_comparison(out, strategies=(GOOD, BAD), grouped=True):
    """Two strategies, three seeds, eight clips in as many groups."""
    rng, records = np.random.default_rng(0), []
    for seed in range(3):
        for strategy in strategies:
            right = rng.uniform(size=8) < (0.95 if strategy == GOOD else 0.4)
            records.append(record(strategy, seed, right=right, seen=right | (right[::-1])))
    (out / RUNS).mkdir(parents=True)
    for number, one in enumerate(records):
        (out / RUNS / f"{number}.json").write_text(json.dumps(one))
    config = {"unfreeze_comparison": 1, "data": {"clips": 40}, "labels": ["a", "<i>"], "test": 0.2}
    (out / CONFIG).write_text(dump(config))
    summary = summarize(records, strategies, grouped=grouped, planned=len(records))
    write_report(out, summary, records)
    return summary.as_plain()


def test_it_says_what_the_comparison_says(tmp_path):
    plain = write_comparison(tmp_path / "cmp")
    html = (tmp_path / "cmp" / REPORT).read_text("utf-8")
    reader = Reader(html)
    for line in (*plain["verdict"], *plain["notes"]):
        assert " ".join(line.split()) in reader.words
    best = plain["rows"][0]
    assert best["strategy"] == GOOD
    assert f"{GOOD} has the highest accuracy on unseen groups" in reader.words
    for row in plain["rows"]:
        cells = next(r for r in reader.rows if r[0] == row["strategy"])
        for cell, part in zip(cells[1:3], ("test", "seen"), strict=True):
            low, high = row["scores"][part]["interval"]
            assert cell == f"{row['scores'][part]['accuracy']:.3f} {low:.3f} to {high:.3f}"
    difference = next(d for d in plain["differences"] if d["part"] == "test")
    cells = reader.row(f"{GOOD} against {BAD}") if len(plain["differences"]) == 1 else None
    cells = cells or next(r for r in reader.rows if r[0] == f"{GOOD} against {BAD}")
    assert cells[2].startswith(f"{100 * difference['value']:+.1f} ")
    assert cells[3] == ("yes" if difference["told_apart"] else "no")
    assert [r[0] for r in reader.rows].count(BAD) == 1 + 3
    assert BAD not in html
    assert len(html.encode()) < 100_000


def test_names_of_files_are_those_of_the_folder():
    folder = (comparison_folder.CONFIG, comparison_folder.RUNS, comparison_folder.RESULT)
    assert folder == (CONFIG, RUNS, RESULT)


def test_one_strategy_and_runs_that_diverged(tmp_path):
    write_comparison(tmp_path / "cmp", (GOOD,), grouped=False)
    diverged = {"strategy": "hot", "seed": 0, "fold": 2, "error": "not finite"}
    (tmp_path / "cmp" / RUNS / "9.json").write_text(json.dumps(diverged))
    reader = Reader(write_comparison_report(tmp_path / "cmp").read_text("utf-8"))
    assert reader.row("hot")[1:4] == ["0", "2", "diverged"]
    assert "on held-out clips" in reader.words


def test_nothing_to_compare_yet(tmp_path):
    (tmp_path / RUNS).mkdir()
    write_report(tmp_path, summarize([], [GOOD], grouped=False, planned=3), [])
    words = Reader((tmp_path / REPORT).read_text("utf-8")).words
    assert "there is nothing to compare yet" in words


def test_a_folder_without_a_result_is_refused(tmp_path):
    with pytest.raises(RunError, match="repeat the command"):
        write_comparison_report(tmp_path)
    (tmp_path / RESULT).write_text('{"rows": 3}')
    with pytest.raises(RunError, match="do not fit each other"):
        write_comparison_report(tmp_path)
