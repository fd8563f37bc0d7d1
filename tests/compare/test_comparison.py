"""Comparisons: kept run by run, resumed, refused when they are another one."""

import json

import numpy as np
import pytest

import toy
import unfreeze
from comparing import record
from unfreeze.compare.budget import EnoughRuns
from unfreeze.compare.comparison import CompareListener, compare
from unfreeze.compare.strategies import CompareOptions
from unfreeze.errors import DataError, RunError, ScheduleError
from unfreeze.pipeline.train_options import TrainOptions

TWO = ("head_only+epochs=2", "two_stage+head_epochs=2+epochs=2")


def options(sounds, tmp_path, strategies=TWO, seeds=2, **changes):
    train = {k: changes.pop(k) for k in ("test", "validation", "epochs", "augment") if k in changes}
    settings = TrainOptions(sounds, backbone="toy", **train)
    return CompareOptions(settings, tmp_path / "out", strategies, seeds, **changes)


def without_times(record):
    return {k: v for k, v in record.items() if "seconds" not in k}


def records(folder):
    return {
        file.name: without_times(json.loads(file.read_text()))
        for file in sorted((folder / "out" / "runs").iterdir())
    }


class StopAt(CompareListener):
    """Breaks a comparison off in the middle of a run, as Ctrl-C does."""

    def __init__(self, run, epoch):
        super().__init__()
        self.run, self.at, self.begun = run, epoch, 0

    def on_run_begin(self, strategy, trial, done, left):
        self.begun += 1

    def on_epoch_end(self, epoch, logs=None):
        if (self.begun, epoch) == (self.run, self.at):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Sounds, and a comparison of real runs on them."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        data = toy.write_sounds(folder / "data", clips=12)
        compare(options(data, folder, seeds=1))
        yield data, folder


def test_real_runs_broken_off_and_gone_on_with(real, tmp_path):
    sounds, whole = real
    assert len(records(whole)) == 2
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        compare(options(sounds, broken, seeds=1), StopAt(2, 1))
    assert len(records(broken)) == 1
    summary = compare(options(sounds, broken, seeds=1))
    assert records(broken) == records(whole)
    assert not (broken / "out" / "current").exists()
    assert summary.runs == 2
    names = {file.name for file in (broken / "out").iterdir()}
    assert names >= {
        "comparison.json",
        "report.md",
        "report.html",
        "accuracy.png",
        "cost.png",
        "moved.png",
    }
    head = next(r for r in records(whole).values() if r["strategy"] == TWO[0])
    moved = {row["layer"]: row["moved"] for row in head["moved"]}
    assert moved["block1_conv"] == 0.0
    assert moved["transfer_output"] > 0.001
    assert set(head["scores"]) == {"test"}


def test_a_run_is_the_run_that_train_makes(real):
    sounds, whole = real
    (record,) = (r for r in records(whole).values() if r["strategy"] == TWO[1])
    trained = unfreeze.SoundClassifier.train(sounds, TWO[1], backbone="toy", seed=0)
    scores = record["scores"]["test"]
    right = np.equal(scores["truth"], scores["guess"])
    assert right.mean() == pytest.approx(trained.metrics["test"]["accuracy"])
    loss = -np.log(np.clip(scores["likelihood"], 1e-7, 1)).mean()
    assert loss == pytest.approx(trained.metrics["test"]["loss"], abs=2e-5)


def test_strategies_and_seeds_are_added_and_nothing_is_repeated(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    assert len(faked.calls) == 1
    summary = compare(options(sounds, tmp_path, strategies=("full", "head_only"), seeds=2))
    assert [(name, trial) for name, trial, _ in faked.calls] == [
        ("full", "seed0"), ("head_only", "seed0"), ("full", "seed1"), ("head_only", "seed1"),
    ]  # fmt: skip
    assert summary.runs == 4


def test_all_strategies_have_the_same_splits(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, strategies=("full", "head_only", "classic"), seeds=2))
    for seed in range(2):
        splits = [split for _, trial, split in faked.calls if trial == f"seed{seed}"]
        assert len(splits) == 3
        for split in splits[1:]:
            for one, other in zip(split.parts().values(), splits[0].parts().values(), strict=True):
                np.testing.assert_array_equal(one, other)


def test_other_data_or_settings_are_refused(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, seeds=1))
    with pytest.raises(RunError, match=r"test was 0.15 and is 0.3"):
        compare(options(sounds, tmp_path, seeds=1, test=0.3))
    next(sounds.rglob("high_0.wav")).unlink()
    with pytest.raises(RunError, match=r"data\.fingerprint was .* and is"):
        compare(options(sounds, tmp_path, seeds=1))
    assert len(faked.calls) == 2


def test_an_edited_schedule_is_another_strategy(sounds, tmp_path, faked):
    from unfreeze.core.presets import two_stage
    from unfreeze.core.schedule_file import write_schedule

    file = tmp_path / "mine.yaml"
    write_schedule(two_stage("transfer_*"), file)
    compare(options(sounds, tmp_path, strategies=(str(file),), seeds=1))
    write_schedule(two_stage("transfer_*").with_changes(epochs=4), file)
    compare(options(sounds, tmp_path, strategies=(str(file),), seeds=1))
    assert len(faked.calls) == 2


def test_an_edited_file_of_settings_is_another_strategy_or_another_comparison(
    sounds, tmp_path, faked
):
    file = tmp_path / "mine.yaml"
    file.write_text("shift: 3\n")
    own, shared = f"full+augment={file}", {"augment": str(file), "strategies": ("full",)}
    for text in ("shift: 3\n", "# the same\nshift: 3\n", "shift: 4\n"):
        file.write_text(text)
        compare(options(sounds, tmp_path, strategies=(own,), seeds=1))
    assert len(faked.calls) == 2
    other = tmp_path / "other"
    compare(options(sounds, other, seeds=1, **shared))
    file.write_text("shift: 3\n")
    with pytest.raises(RunError, match="augment"):
        compare(options(sounds, other, seeds=1, **shared))


def test_a_budget_ends_it_and_the_report_says_so(sounds, tmp_path, faked):
    faked.seconds = 100.0
    summary = compare(options(sounds, tmp_path, strategies=("full", "head_only"), budget=50.0))
    # The first run begins, as nothing is known yet; the next would take 100 s.
    assert len(faked.calls) == 1
    assert summary.rows == ()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "nothing to compare yet" in text
    compare(options(sounds, tmp_path, strategies=("full", "head_only"), budget=1000.0))
    assert len(faked.calls) == 4


def test_what_is_wrong_is_said_before_any_run(sounds, tmp_path, faked):
    with pytest.raises(ScheduleError, match="matches no layer"):
        compare(options(sounds, tmp_path, strategies=("full", "two_stage+train=nothing_*")))
    with pytest.raises(DataError, match="folds need as many groups"):
        compare(options(sounds, tmp_path, folds=99))
    foreign = tmp_path / "foreign" / "out"
    foreign.mkdir(parents=True)
    (foreign / "thesis.doc").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no comparison"):
        compare(options(sounds, tmp_path / "foreign"))
    assert faked.calls == []


def test_a_damaged_record_is_named(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    (file,) = (tmp_path / "out" / "runs").iterdir()
    file.write_text('{"strategy"')
    with pytest.raises(RunError, match=r"full-.*seed0.json cannot be read .*delete it"):
        compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    whole = record("full", right=[True, False])
    for part, value in (
        ("strategy", 3), ("seed", "x"), ("fold", "x"), ("epochs", []), ("seconds", None),
        ("scores", {}), ("scores", {"test": {}}),
        ("scores", {"test": {**whole["scores"]["test"], "group": [0, 9]}}),
        ("scores", {"test": {**whole["scores"]["test"], "guess": [1]}}),
    ):  # fmt: skip
        file.write_text(json.dumps({**whole, part: value}))
        with pytest.raises(RunError, match="is not a record of a run"):
            compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    file.write_text("[" * 100_000)
    with pytest.raises(RunError, match="delete it to run it again"):
        compare(options(sounds, tmp_path, strategies=("full",), seeds=1))


def test_a_folder_with_a_link_that_leads_out_is_refused(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out" / "current").symlink_to(elsewhere)
    with pytest.raises(RunError, match="a link that leads out"):
        compare(options(sounds, tmp_path, strategies=("full",), seeds=1))


def test_a_config_with_code_in_it_is_refused(sounds, tmp_path, faked):
    compare(options(sounds, tmp_path, strategies=("full",), seeds=1))
    config = tmp_path / "out" / "config.yaml"
    config.write_text("unfreeze_comparison: !!python/object/apply:os.system [exit]\n")
    with pytest.raises(RunError, match="cannot be read"):
        compare(options(sounds, tmp_path, strategies=("full",), seeds=1))


def test_time_left_is_told(sounds, tmp_path, faked):
    told = []

    class Listener(CompareListener):
        def on_run_begin(self, strategy, trial, done, left):
            told.append((done, left))

    faked.seconds = 10.0
    compare(options(sounds, tmp_path, strategies=("full", "head_only"), seeds=2), Listener())
    assert told == [(0, None), (1, 30.0), (2, 20.0), (3, 10.0)]


def test_a_process_does_its_share_and_the_next_goes_on(sounds, tmp_path, faked):
    with pytest.raises(EnoughRuns):
        compare(options(sounds, tmp_path), most=3)
    assert len(faked.calls) == 3
    assert compare(options(sounds, tmp_path), most=1).runs == 4
    assert len(faked.calls) == 4
    # What is left by the budget is left by a share too: no renewal without end.
    assert compare(options(sounds, tmp_path), most=0).runs == 4
