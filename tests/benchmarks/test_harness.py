"""The harness of the benchmarks, with sides that take no time."""

import json
from pathlib import Path

import pytest
from benchmarks.comparisons import time_to_best
from benchmarks.plan import Comparison, Options, Ratio, Side

from benchmarks import comparisons, harness, plan, processes, report

ROOT = Path(__file__).resolve().parents[2]


class Fake:
    """A side that gives one set of values after the other."""

    versions = {"fake": "1"}  # noqa: RUF012

    def __init__(self, name, values, order):
        self.name, self.values, self.order, self.closed = name, iter(values), order, False

    def round(self):
        self.order.append(self.name)
        value = next(self.values)
        if isinstance(value, Exception):
            raise value
        return dict(value)

    def close(self):
        self.closed = True


def run(values, ratios, *, rounds=3, derive=None):
    """Run fake sides; gives the part of the results and the order of the calls."""
    order = []

    def begin(side):
        given = values[side.name]
        if isinstance(given, Exception):
            raise given
        return Fake(side.name, given, order)

    comparison = Comparison(
        name="fake",
        title="Fake",
        sides=tuple(Side(name, "no.module") for name in values),
        ratios=ratios,
        rounds=rounds,
        derive=derive,
    )
    return harness.run(comparison, begin=begin, look=lambda: 0.25), order


def rates(*values):
    return [{"rate": value, "seconds": 1.0} for value in values]


def test_sides_take_turns_and_the_order_turns_around():
    _, order = run({"a": rates(1, 1, 1), "b": rates(1, 1, 1)}, ())
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_ratios_are_taken_round_by_round():
    # The machine is ten times slower in the second round; ratios stay.
    part, _ = run(
        {"ours": rates(20, 2, 33), "theirs": rates(10, 1, 11)},
        (Ratio("ours / theirs", "ours", "theirs", target=2.0),),
    )
    ratio = part["ratios"][0]
    assert ratio["by_round"] == [2.0, 2.0, 3.0]
    assert (ratio["median"], ratio["low"], ratio["high"]) == (2.0, 2.0, 3.0)
    assert ratio["reached"] is True
    assert part["sides"]["ours"]["rate"]["median"] == 20
    assert part["versions"] == {"fake": "1"}
    json.dumps(part, allow_nan=False)


@pytest.mark.parametrize(
    ("at_most", "target", "reached"),
    [(False, 2.0, True), (False, 2.1, False), (True, 2.0, True), (True, 1.9, False)],
)
def test_targets_have_a_direction(at_most, target, reached):
    ratio = Ratio("r", "a", None, target=target, at_most=at_most)
    assert harness.ratio_of(ratio, [{"a": {"rate": 2.0}}])["reached"] is reached


def test_a_side_that_cannot_start_is_reported_with_its_cause():
    part, order = run(
        {"ours": rates(4, 4, 4), "theirs": processes.SideFailed("no module named theirs")},
        (Ratio("ours / theirs", "ours", "theirs", target=2.0),),
    )
    assert part["failed"] == {"theirs": "no module named theirs"}
    assert order == ["ours"] * 3
    assert part["ratios"][0]["reached"] is False
    assert part["ratios"][0]["missing"] == "not measured"
    assert "median" not in part["ratios"][0]


def test_a_side_that_breaks_down_is_left_out_of_later_rounds():
    broken = [*rates(2), processes.SideFailed("out of memory"), *rates(2)]
    part, order = run(
        {"ours": rates(4, 4, 4), "theirs": broken},
        (Ratio("ours / theirs", "ours", "theirs", target=1.0),),
    )
    assert order == ["ours", "theirs", "theirs", "ours", "ours"]
    assert part["failed"] == {"theirs": "out of memory"}
    # One round is no proof.
    assert part["ratios"][0]["by_round"] == [2.0]
    assert part["ratios"][0]["reached"] is False


def test_time_to_best_counts_until_the_opponents_best_loss():
    plain, ours = time_to_best.names("animal-sounds")
    row = {
        plain: {"log": [(10.0, 0.9), (20.0, 0.4), (30.0, 0.5)]},
        ours: {"log": [(3.0, 0.8), (4.0, 0.39), (5.0, 0.1)]},
    }
    time_to_best.derive(row)
    assert (row[plain]["to_best"], row[ours]["to_best"]) == (20.0, 4.0)
    row[ours] = {"log": [(3.0, 0.8), (4.0, 0.41)]}
    time_to_best.derive(row)
    assert "to_best" not in row[ours]
    ratio = Ratio("time", plain, ours, "to_best", target=20, missing="ours never came there")
    assert harness.ratio_of(ratio, [row])["missing"] == "ours never came there"


def test_the_page_shows_every_target_and_every_failure(tmp_path):
    options = Options(work=tmp_path, cache=tmp_path, data=tmp_path)
    declared = [declare(options) for declare in comparisons.ALL.values()]
    part, _ = run(
        {"ours": rates(4, 4, 5), "theirs": rates(2, 2, 2), "gone": processes.SideFailed("why")},
        (
            Ratio("fast", "ours", "theirs", target=2.0),
            Ratio("faster", "ours", "theirs", target=3.0),
            Ratio("gone", "ours", "gone", target=1.0),
        ),
    )
    part["settings"]["quick"] = True
    results = {"format": 1, "comparisons": {"startup": part}}
    page = report.page(results, declared)
    assert "| fast | >= 2 | 2 (2 to 2.5) | reached (quick form) |" in page
    assert "| faster | >= 3 | 2 (2 to 2.5) | not reached (quick form) |" in page
    assert "| gone | >= 1 | - | not measured (quick form) |" in page
    assert "- gone: why" in page
    assert "Other work on the machine: 25% of the processor" in page
    for comparison in declared:
        if comparison.name == "startup":
            continue
        for ratio in comparison.ratios:
            assert (f"| {ratio.text} |" in page) == (ratio.target is not None)
    report.chart(results, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_all_comparisons_are_declared_under_their_names(tmp_path):
    for quick in (False, True):
        options = Options(work=tmp_path, cache=tmp_path, quick=quick, data=tmp_path)
        for name, declare in comparisons.ALL.items():
            comparison = declare(options)
            sides = {side.name for side in comparison.sides}
            assert comparison.name == name
            assert not comparison.skipped
            for ratio in comparison.ratios:
                assert ratio.top in sides
                assert ratio.bottom is None or ratio.bottom in sides
            for side in (*comparison.before, *comparison.sides):
                place = ROOT / (side.module.replace(".", "/") + ".py")
                assert "def prepare(args):" in place.read_text()
                json.dumps(side.args)


def test_a_side_that_is_left_out_takes_its_ratios_along(tmp_path):
    whole = comparisons.full_stage.declare(Options(work=tmp_path, cache=tmp_path))
    short = plan.without(whole, comparisons.full_stage.NCHW)
    assert len(whole.sides) - len(short.sides) == 1
    assert [r.text for r in whole.ratios if r not in short.ratios] == [
        "full stage: ours / plain PyTorch, NCHW"
    ]


def test_what_needs_data_says_so(tmp_path):
    options = Options(work=tmp_path, cache=tmp_path)
    skipped = {name for name, declare in comparisons.ALL.items() if declare(options).skipped}
    assert skipped == {"time_to_best", "features", "features_short"}


SIDE = """
import sys

def prepare(args):
    print("a library that talks")
    if args.get("fail") == "prepare":
        raise ImportError("no module named speed")

    def run():
        print("and talks")
        if args.get("fail") == "run":
            raise ValueError("it is broken in /some/where/deep/file.py")
        if args.get("fail") == "die":
            sys.stderr.write("killed\\n")
            sys.exit(3)
        return {"items": args["items"], "seconds": 2.0, "fail": 0}

    return run
"""


@pytest.fixture
def side(tmp_path, monkeypatch):
    """Makes a real side in a process of its own."""
    (tmp_path / "talking_side.py").write_text(SIDE)
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return lambda **args: Side("talking", "talking_side", args)


def test_a_worker_survives_libraries_that_print(side):
    process = processes.start(side(items=6))
    found = [process.round(), process.round()]
    process.close()
    assert [values["rate"] for values in found] == [3.0, 3.0]
    assert 1 < found[0]["peak_mb"] < 5000


def test_a_fresh_side_is_timed_from_start_to_end(side):
    fresh = Side("fresh", "talking_side", side(items=6).args, fresh=True)
    found = processes.start(fresh).round()
    assert found["inside_seconds"] == 2.0
    assert 0.01 < found["seconds"] < 60


@pytest.mark.parametrize(
    ("fail", "cause"),
    [
        ("prepare", "ImportError: no module named speed"),
        ("run", "ValueError: it is broken in file.py"),
        ("die", "ended with code 3: killed"),
    ],
)
def test_a_worker_tells_why_it_failed(side, fail, cause):
    with pytest.raises(processes.SideFailed) as caught:
        processes.start(side(items=1, fail=fail)).round()
    assert str(caught.value) == cause


def test_a_missing_environment_is_a_failure_with_its_cure():
    with pytest.raises(processes.SideFailed, match="python -m benchmarks --setup"):
        processes.start(Side("lost", "talking_side", environment="audio-of-nobody"))
