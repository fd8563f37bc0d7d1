"""From settings to a plan: everything resolved once, before Keras is needed."""

import inspect
import subprocess
import sys

import attrs
import pytest

import toy
import unfreeze
from unfreeze import planning
from unfreeze.errors import RunError, ScheduleError, UnfreezeError
from unfreeze.pipeline.run_writing import begin_run
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.planning import complete_options, planned


@pytest.fixture
def data(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    return toy.write_sounds(tmp_path / "data", clips=6)


def test_a_plan_holds_what_the_run_will_use(data, tmp_path):
    heard = []
    options = TrainOptions(data, "full", tmp_path / "run", backbone="toy", epochs=3)
    with planned(options, lambda what, done, total: heard.append(what)) as plan:
        assert [(stage.name, stage.epochs) for stage in plan.schedule] == [("all", 3)]
        assert plan.inputs.backbone.name == "toy"
        assert len(plan.inputs.data.manifest.clips) == 18
        assert plan.inputs.weights.is_file()
        assert plan.load_earlier is None
        with pytest.raises(RunError, match="Another process"), planned(options):
            pass
    assert set(heard) == {"reading"}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["augment", "class_weight"])
def test_a_changed_file_of_settings_is_no_run_to_resume(name, data, tmp_path):
    file, out = tmp_path / "mine.yaml", tmp_path / "run"
    texts = {"augment": ("shift: 1\n", "shift: 2\n"), "class_weight": ("low: 2\n", "low: 3\n")}
    file.write_text(texts[name][0])
    options = TrainOptions(data, "two_stage", out, backbone="toy", **{name: str(file)})
    with planned(options) as plan:
        begin_run(options, plan.inputs)
    again = attrs.evolve(options, resume=True)
    with planned(again) as plan:
        assert plan.inputs.data.manifest.labels
    file.write_text(texts[name][1])
    with pytest.raises(RunError, match=f"cannot be resumed, .*files.*{name}"):
        planned(again).__enter__()
    file.write_text("nothing: of that\n")
    with pytest.raises(ScheduleError, match=r"mine\.yaml:1: "), planned(again) as plan:
        pass


def test_what_can_be_refused_is_refused_before_the_data_are_made(data, tmp_path):
    def never():
        pytest.fail("the data were made")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for given in (
        {"schedule": "two_stages"},
        {"backbone": "yamnets"},
        {"out": tmp_path / "mine"},
        {"backbone": "toy", "keep_audioset": True},
        {"keep_audioset": True, "slow_down": 10},
    ):
        with pytest.raises(UnfreezeError):
            planned(TrainOptions(data, **given), make_data=never).__enter__()


def test_planning_needs_no_keras(data, tmp_path):
    code = (
        "import sys; from unfreeze.planning import planned; "
        "from unfreeze.pipeline.train_options import TrainOptions\n"
        "try:\n    planned(TrainOptions(sys.argv[1], out=sys.argv[2], schedule='x')).__enter__()\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print('keras' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(data), str(tmp_path / "run")]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert shown == ["ScheduleError", "False"]


def test_settings_are_completed_from_the_earlier_run_where_none_are_given(data, tmp_path):
    run = tmp_path / "run"
    unfreeze.SoundClassifier.train(
        data, "head_only", run, backbone="toy", epochs=1, seed=3, test=0.2
    )
    found = complete_options(tmp_path / "clips", add_to=run, test=0.3)
    assert (found.backbone, found.seed, found.test) == ("toy", 3, 0.3)
    assert found.schedule == str(run / "schedule.yaml")
    assert complete_options("clips", "full", seed=1) == TrainOptions("clips", "full", seed=1)


def test_arguments_that_no_option_takes_are_refused():
    names = list(inspect.signature(planning.complete_options).parameters)
    assert names[:3] == ["data", "schedule", "out"]
    with pytest.raises(TypeError, match="too many"):
        complete_options(*names, "one more")
    with pytest.raises(TypeError, match="multiple values"):
        complete_options("data", data="data")
