"""The schedule `auto`: honest, in time, and kept."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

import unfreeze
from comparing import record
from unfreeze.compare import auto, budget
from unfreeze.compare.auto import decide
from unfreeze.core.presets import DEFAULT
from unfreeze.errors import RunError, UnfreezeError

SMALL = (DEFAULT, "head_only")


def rounds(name, accuracy, count=3, clips=40, spread=0):
    """Runs in which each clip of its own group is right with that share."""
    found = []
    for seed in range(count):
        right = np.roll(np.arange(clips) < accuracy * clips, spread * seed)
        found.append(record(name, seed, right=right, groups=[f"g{i}" for i in range(clips)]))
    return found


def test_the_default_stays_unless_another_is_clearly_better():
    same = decide(rounds(DEFAULT, 0.6) + rounds("full", 0.6))
    assert same.schedule == DEFAULT
    assert "stays, as full" in same.reason
    clear = decide(rounds(DEFAULT, 0.5) + rounds("full", 0.9))
    assert clear.schedule == "full"
    assert "90.0 against 50.0 %" in clear.reason
    assert [row["strategy"] for row in clear.rows] == ["full", DEFAULT]


def test_a_gain_within_a_standard_error_is_none():
    # 21 of 40 clips against 20, each right where the other is wrong: noise.
    base = np.arange(40) < 20
    other = np.arange(40) >= 19
    names = [f"g{i}" for i in range(40)]
    records = [record(DEFAULT, right=base, groups=names), record("full", right=other, groups=names)]
    assert decide(records).schedule == DEFAULT


def test_one_group_alone_has_an_error_all_the_same():
    # The bootstrap over groups sees no spread where there is one group.
    for more, chosen in ((2, DEFAULT), (12, "full")):
        # The first clip is lost, some others are won.
        base, other = np.arange(40) < 20, np.arange(40) < 20 + more
        other[0] = False
        records = [
            record(DEFAULT, right=base, groups=["one"] * 40),
            record("full", right=other, groups=["one"] * 40),
        ]
        assert decide(records).schedule == chosen


def test_strategies_are_judged_on_rounds_that_both_have_done():
    # head_only did the easy round alone.
    easy, hard = rounds("head_only", 0.9, count=1), rounds(DEFAULT, 0.9, count=1)
    more = [r for r in rounds(DEFAULT, 0.3) if r["seed"] > 0]
    assert decide(easy + hard + more).schedule == DEFAULT
    failed = {"strategy": DEFAULT, "seed": 0, "fold": None, "error": "not finite"}
    assert decide([failed, *rounds("head_only", 0.4)]).schedule == "head_only"
    with pytest.raises(UnfreezeError, match="Every strategy diverged"):
        decide([failed])


def train(data, out, schedule="auto", **changes):
    return unfreeze.SoundClassifier.train(
        data, schedule, out, backbone="toy", **{"epochs": 2, "seed": 0, **changes}
    )


def test_halving_keeps_the_better_and_the_default(sounds, tmp_path, faked, monkeypatch):
    monkeypatch.setattr(auto, "CANDIDATES", (DEFAULT, "head_only", "full", "surgical:last"))
    faked.skill = {DEFAULT: 0.1, "head_only": 0.2, "full": 1.0, "surgical:last": 0.9}
    found = train(sounds, tmp_path / "run").metrics["auto"]
    tried = [(name, trial) for name, trial, _ in faked.calls]
    assert tried[:4] == [(name, "seed0") for name in auto.CANDIDATES]
    second = {name for name, trial in tried if trial == "seed1"}
    assert second == {DEFAULT, "full", "surgical:last"}
    assert found["schedule"] == "full"
    assert json.loads((tmp_path / "run" / "auto.json").read_text()) == found
    assert "full" in (tmp_path / "run" / "schedule.yaml").read_text()
    assert (tmp_path / "run" / "auto.png").stat().st_size > 5000


def test_no_trial_sees_a_test_clip(sounds, tmp_path, faked):
    faked.skill["head_only"] = 1.0
    train(sounds, tmp_path / "run")
    with (tmp_path / "run" / "splits.csv").open() as file:
        test = {i for i, row in enumerate(csv.DictReader(file)) if row["split"] == "test"}
    assert len(test) >= 3
    assert len(faked.calls) >= len(auto.CANDIDATES)
    for _, _, split in faked.calls:
        assert not test & {int(i) for part in split.parts().values() for i in part}


def test_the_budget_bounds_the_trials(sounds, tmp_path, faked):
    faked.seconds = 100.0
    found = train(sounds, tmp_path / "run", budget=60.0).metrics["auto"]
    assert [name for name, _, _ in faked.calls] == [DEFAULT]
    assert found["schedule"] == DEFAULT
    assert "no other strategy could be tried in the time" in found["reason"]


def test_no_round_is_begun_that_the_default_cannot_end(sounds, tmp_path, faked, monkeypatch):
    # What others do in a round without it can be held against nothing.
    faked.skill["head_only"] = 1.0
    now = 0.0

    def run(material, trial, strategy, run_dir=None, callbacks=()):
        nonlocal now
        spent = 100.0 if strategy.name == DEFAULT else 1.0
        now += spent
        return {**faked(material, trial, strategy), "wall_seconds": spent}

    monkeypatch.setattr(auto, "run_trial", run)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now))
    for seconds, rounds in ((203, 1), (230, 2)):
        faked.calls.clear()
        now = 0.0
        train(sounds, tmp_path / str(seconds), budget=float(seconds))
        tried = [(name, trial) for name, trial, _ in faked.calls]
        assert {trial for _, trial in tried} == {f"seed{i}" for i in range(rounds)}
        assert [name for name, trial in tried if trial == "seed0"] == [*auto.CANDIDATES]
        assert tried.count((DEFAULT, "seed1")) == rounds - 1


def test_too_few_groups_take_the_default_and_say_so(sounds, tmp_path, faked):
    rows = [
        {"path": f.relative_to(sounds), "label": f.parent.name, "group": f"s{i % 3}"}
        for i, f in enumerate(sorted(sounds.rglob("*.wav")))
    ]
    manifest = sounds / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "group"])
        writer.writeheader()
        writer.writerows(rows)
    found = train(manifest, tmp_path / "run").metrics["auto"]
    assert faked.calls == []
    assert found["schedule"] == DEFAULT
    assert "no trial is possible" in found["reason"]
    assert "groups cannot be divided" in found["reason"]


def test_trials_are_kept_and_the_choice_is_not_made_twice(sounds, tmp_path, faked):
    faked.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        train(sounds, tmp_path / "run")
    faked.stop_after = None
    train(sounds, tmp_path / "run", resume=True)
    names = [(name, trial) for name, trial, _ in faked.calls]
    assert len(names) == len(set(names))
    (tmp_path / "run" / "auto.json").write_text("[")
    with pytest.raises(RunError, match=r"auto.json cannot be read .*delete it"):
        auto.read_choice(tmp_path / "run")


def test_poisoned_test_labels_change_nothing_but_the_test_scores(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "CANDIDATES", SMALL)
    monkeypatch.setattr(auto, "ROUNDS", 1)
    labels = ["high", "low", "noise"]
    found = []
    for turned in (0, 1):
        manifest = sounds / f"turned{turned}.csv"
        with manifest.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label", "split"])
            writer.writeheader()
            for path in sorted(sounds.rglob("*.wav")):
                number = int(path.stem.split("_")[1])
                split = "test" if number < 3 else "validation" if number < 5 else "train"
                place = labels.index(path.parent.name)
                label = labels[(place + turned * (split == "test")) % 3]
                path = path.relative_to(sounds)
                writer.writerow({"path": path, "label": label, "split": split})
        found.append(train(manifest, tmp_path / f"run{turned}"))
    clean, poisoned = found
    assert len(clean.metrics["auto"]["trials"]) == 2
    for row, other in zip(
        clean.metrics["auto"]["trials"], poisoned.metrics["auto"]["trials"], strict=True
    ):
        assert (row["strategy"], row["accuracy"]) == (other["strategy"], other["accuracy"])
    assert clean.metrics["auto"]["reason"] == poisoned.metrics["auto"]["reason"]
    for a, b in zip(clean.model.get_weights(), poisoned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert clean.metrics["validation"] == poisoned.metrics["validation"]
    assert clean.metrics["test"]["confusion"] != poisoned.metrics["test"]["confusion"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "--learning-rate and --schedule auto contradict"),
        ({"batch_size": 8}, "--batch-size and --schedule auto contradict"),
        ({"budget": 0.0}, "need some seconds"),
    ],
)
def test_refused(sounds, tmp_path, changes, message):
    with pytest.raises(UnfreezeError, match=message):
        train(sounds, tmp_path / "run", **changes)
