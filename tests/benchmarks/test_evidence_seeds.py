"""The table of `benchmarks.evidence_seeds`, on made-up runs."""

import json

import numpy as np

from benchmarks import evidence_seeds
from comparing import record
from unfreeze.compare import summary


def rows_of(records):
    rows = []
    for one in records:
        scores = {part: evidence_seeds.counted(found) for part, found in one["scores"].items()}
        rows.append({**one, "data": "d", "scores": scores})
    return rows


def made_up(skills, seeds=6, clips=40):
    rng = np.random.default_rng(0)
    groups = [f"s{i % 4}" for i in range(clips)]
    return [
        record(name, seed, right=rng.random(clips) < skill, groups=groups)
        for seed in range(seeds)
        for name, skill in skills.items()
    ]


def test_counts_are_those_of_the_comparison_itself():
    records = made_up({"a": 0.9, "b": 0.5})
    runs = [[r for r in records if r["strategy"] == name] for name in ("a", "b")]
    expected = summary.tables(runs, "test")
    for got, wanted in zip(
        evidence_seeds.tables(rows_of(records), ("a", "b"), "test"), expected, strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_only_seeds_that_all_have_done_count():
    records = made_up({"a": 0.9, "b": 0.5})
    rows = [*rows_of(records[:-1]), {"strategy": "b", "seed": 5, "error": "diverged"}]
    hits, counts = evidence_seeds.tables(rows, ("a", "b"), "test")
    assert (hits.shape, counts.shape) == ((2, 5, 4), (5, 4))


def test_lines_tell_the_paired_difference():
    records = made_up({"a": 0.9, "b": 0.5})
    wrong = {
        name: np.mean([r["scores"]["test"]["guess"] for r in records if r["strategy"] == name])
        for name in "ab"
    }
    head, first, second = evidence_seeds.lines(rows_of(records), ("a", "b"), "test")
    assert head == "test: 6 seeds, 4 groups"
    assert first.startswith(f"  a: {1 - wrong['a']:.3f} [")
    assert f", {100 * (wrong['a'] - wrong['b']):+.1f} [" in second
    assert "from a, standard deviation" in second


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    file = tmp_path / "rows.jsonl"
    assert evidence_seeds.read_rows(file) == []
    file.write_text(json.dumps({"seed": 1}) + "\n" + '{"seed": 2, "stra')
    assert evidence_seeds.read_rows(file) == [{"seed": 1}]


def test_the_runs_of_a_study_count_like_these(tmp_path):
    records = made_up({"a": 0.9, "b": 0.5}, seeds=2)
    for number, one in enumerate([*records, {"strategy": "c", "seed": 0, "error": "diverged"}]):
        (tmp_path / f"{number}.json").write_text(json.dumps(one))
    rows = evidence_seeds.study_rows(tmp_path, "d")
    assert [(row["strategy"], row["seed"]) for row in rows] == [
        ("a", 0), ("b", 0), ("a", 1), ("b", 1),
    ]  # fmt: skip
    for row, wanted in zip(rows, rows_of(records), strict=True):
        assert row["scores"] == wanted["scores"]
