"""The benchmark of kills finds a difference where there is one, and kills as it says."""

import json

import numpy as np
import pytest
from benchmarks.kills import trial
from benchmarks.kills.__main__ import _begin, _summary
from benchmarks.kills.commands import COMMANDS, ORDER, Command, phase_of_training
from benchmarks.kills.compare import describe, differences

WEIGHT = "run/model.keras:model.weights.h5:layers/dense/vars/0"


def make_run(folder, weight=0.5, seconds=1.0, loss=0.25):
    import keras

    (folder / "run").mkdir(parents=True)
    layers = [keras.Input((2,), name="x"), keras.layers.Dense(1, name="d")]
    model = keras.Sequential(layers, name="m")
    model.set_weights([np.full((2, 1), weight, np.float32), np.zeros(1, np.float32)])
    model.save(folder / "run" / "model.keras")
    (folder / "run" / "history.csv").write_text(f"loss,seconds\n{loss},{seconds}\n")
    (folder / "run" / "metrics.json").write_text(json.dumps({"test": loss, "seconds": seconds}))
    (folder / "run" / "plot.png").write_bytes(b"picture")
    (folder / "run" / "unfreeze-events.jsonl").write_text("a\nb\n")
    return describe(folder, ("run",))


@pytest.fixture
def whole(tmp_path):
    return make_run(tmp_path / "whole")


def test_only_clocks_may_differ(whole, tmp_path):
    other = make_run(tmp_path / "other", seconds=2.5)
    assert differences(whole, other) == []
    assert WEIGHT in whole


def test_the_last_bit_of_a_weight_is_found(whole, tmp_path):
    other = make_run(tmp_path / "other", weight=np.nextafter(np.float32(0.5), np.float32(1)))
    assert differences(whole, other) == [f"{WEIGHT} differs"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("history.csv", "loss,seconds\n0.26,1\n", "differs"),
        ("metrics.json", '{"test": 0.5}', "differs"),
        ("plot.png", "picturf", "differs"),
        ("unfreeze-events.jsonl", "b\na\n", None),
        ("unfreeze-events.jsonl", "a\na\n", "differs"),
        ("plot.png", None, "is missing"),
        (".partial-0123456789abcdef-plot.png", "pic", "is left over"),
        (".lock", "", None),
    ],
)
def test_any_file_that_is_not_the_same_is_found(whole, tmp_path, name, content, found):
    make_run(tmp_path / "other")
    path = tmp_path / "other" / "run" / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    told = differences(whole, describe(tmp_path / "other", ("run",)))
    assert told == ([f"run/{name} {found}"] if found else [])


STEPS = """
import pathlib, time
file = pathlib.Path("out", "steps.txt")
file.parent.mkdir(exist_ok=True)
begin = len(file.read_text()) if file.exists() {flaw} else 0
for step in range(begin, 40):
    with file.open("a") as out:
        out.write("x")
    time.sleep(0.01)
"""


def steps(flaw=""):
    """A command that goes on where it was, or with a flaw begins anew behind it."""
    return Command(
        lambda material: ["-c", STEPS.format(flaw=flaw)],
        results=("out",),
        phase=lambda place: "steps" if (place / "out" / "steps.txt").exists() else "start",
        aims=lambda phase: phase == "steps",
    )


@pytest.fixture
def bare(monkeypatch):
    """No weights are looked for, the environment is as it is."""
    monkeypatch.setattr(trial, "environment", lambda place: None)


@pytest.mark.usefixtures("bare")
def test_a_command_that_goes_on_passes_and_one_that_does_not_is_told(tmp_path):
    place, normal = tmp_path / "here", None
    for flaw, differs in (("", False), ("and False", True)):
        normal = trial.undisturbed(steps(), None, place)
        expected = describe(place, ("out",))
        assert normal.seconds > 0.4
        assert list(normal.phases) in (["start", "steps"], ["steps"])
        # So long that the third, which is to be killed again, ends by itself before.
        aimed = trial.Watched(60.0, {"start": 0.1, "steps": 0.2})
        command = steps(flaw)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            line = trial.killed(command, None, place, expected, aimed, rng)
            assert [kill["phase"] for kill in line["kills"]] == ["steps"]
            assert line["differences"] == (["out/steps.txt differs"] if differs else [])


@pytest.mark.usefixtures("bare")
def test_one_that_is_killed_again_as_it_goes_on(tmp_path):
    place = tmp_path / "here"
    normal = trial.undisturbed(steps(), None, place)
    expected = describe(place, ("out",))
    assert normal.seconds > 0.4
    # The second comes within 0.2 s, when more than 0.2 s of steps are left for certain.
    aimed = trial.Watched(0.2, {"start": 0.1, "steps": 0.05})
    line = trial.killed(steps(), None, place, expected, aimed, np.random.default_rng(2))
    assert [kill.get("again", False) for kill in line["kills"]] == [False, True]
    assert line["differences"] == []


@pytest.mark.usefixtures("bare")
def test_an_end_with_an_error_is_a_difference(tmp_path):
    fails = "import pathlib, sys, time; f = pathlib.Path('f'); f.exists() and sys.exit(3); "
    fails += "f.touch(); time.sleep(30)"
    command = Command(
        lambda material: ["-c", fails],
        results=("f",),
        phase=lambda place: "work" if (place / "f").exists() else "start",
        aims=lambda phase: phase == "work",
    )
    (tmp_path / "f").touch()
    expected = describe(tmp_path, ("f",))
    normal = trial.Watched(1.0, {"start": 0.1, "work": 0.1})
    rng = np.random.default_rng(1)
    line = trial.killed(command, None, tmp_path / "here", expected, normal, rng)
    assert line["differences"] == ["it ended with code 3"]


def test_a_log_goes_on_and_that_of_other_code_is_refused(tmp_path):
    log, head = tmp_path / "log.jsonl", {"kills_log": 1, "seed": 0, "clips": 6, "code": "a"}
    head |= {"threads": 2, "versions": {}}
    assert _begin(log, head) == {}
    line = {"number": 0, "command": "train", "kills": [{"phase": "p"}], "differences": ["x"]}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert _begin(log, head) == {0: line}
    assert "0 equal results of 1" in _summary([line])
    with pytest.raises(SystemExit, match="begun with another code"):
        _begin(log, {**head, "code": "b"})


def test_the_state_of_a_training_is_read_from_its_folder(tmp_path):
    run = tmp_path / "run"
    told = [phase_of_training(tmp_path)]
    (run / "stages").mkdir(parents=True)
    (run / "config.yaml").touch()
    told.append(phase_of_training(tmp_path))
    record = {"run": {"schedule": {"head": {}, "all": {}}}, "stages": [{}]}
    (run / "stages" / "fit.json").write_text(json.dumps(record))
    told.append(phase_of_training(tmp_path))
    (run / ".partial-0123456789abcdef-model.keras").touch()
    told.append(phase_of_training(tmp_path))
    (run / "metrics.json").touch()
    told.append(phase_of_training(tmp_path))
    assert told == [
        "start and reading",
        "before the first stage",
        "stage all, before its first checkpoint",
        "writing model.keras",
        "after the scores",
    ]


def test_each_command_has_its_turn_in_the_short_form():
    assert set(ORDER) == set(COMMANDS)
    assert len(set(ORDER[:5])) == 5
