"""The commands that the studio shows and runs are what the command line understands."""

import os
import shlex

import pytest
from typer.main import get_command

import toy
from unfreeze.cli.app import app
from unfreeze.core.presets import PRESETS
from unfreeze.errors import RunError, UnfreezeError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.train_options import OPTIONS, TrainOptions, default_of
from unfreeze.serve import studio_commands as commands

ODD = 'it\'s a "lab" $(rm -rf ~); --out `x`\\'


def parsed(line):
    """A line for a shell as the command line takes it: the command, and its values."""
    program, name, *words = shlex.split(line)
    assert program == "unfreeze"
    context = get_command(app).commands[name].make_context(name, words)
    return name, context.params


def test_the_form_is_made_of_the_options_of_train():
    fields = {field["name"]: field for field in commands.fields()}
    assert tuple(fields) == commands.IN_FORM
    for name, field in fields.items():
        assert field["default"] == default_of(name)
        assert field["help"] == OPTIONS[name].help.partition(" or a YAML file")[0].rstrip(",;") + (
            "." if "or a YAML file" in OPTIONS[name].help else ""
        )
    assert fields["schedule"]["choices"] == tuple(PRESETS)
    assert fields["schedule"]["about"].keys() == PRESETS.keys()
    assert fields["backbone"]["choices"][:2] == ("yamnet", "birdnet")
    kinds = {name: field["kind"] for name, field in fields.items()}
    assert kinds["epochs"] == kinds["seed"] == "whole"
    assert (kinds["validation"], kinds["gate"], kinds["group_regex"]) == ("number", "flag", "text")
    assert [name for name, field in fields.items() if field["in_sight"]] == [
        "schedule", "backbone", "augment",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"schedule": "two_stage", "augment": "none", "epochs": 3, "gate": False, "seed": 7},
        {"backbone": "birdnet", "accept_licence": True, "in_noise": True, "test": 0.0},
        {"group_regex": "-([^ ']+)$(x)", "multilabel": True, "annotated": "fully"},
        {"class_weight": "none", "validation": 0.25},
    ],
)
def test_the_command_that_is_shown_trains_with_the_same_settings(tmp_path, given):
    data, run = tmp_path / ODD, tmp_path / "runs" / "a run"
    options = commands.options_of(data, run, given)
    name, params = parsed(commands.as_line(commands.train_words(options)))
    assert name == "train"
    assert params.pop("progress") is None
    assert (params.pop("json"), params.pop("quiet")) == (False, False)
    assert TrainOptions(**params) == options
    name, params = parsed(commands.as_line(commands.inspect_words(options)))
    assert (name, params["data"]) == ("inspect", data)
    for key in ("multilabel", "annotated", "group_regex", "validation", "test", "seed"):
        assert params[key] == getattr(options, key)


@pytest.mark.parametrize(
    "given",
    [
        {"schedule": "/etc/passwd"},
        {"schedule": "mine.yaml"},
        {"augment": "mine.yaml"},
        {"backbone": "evil.yaml"},
        {"weights": "/etc/passwd"},
        {"mlflow": "http://evil.example"},
        {"tensorboard": "/tmp/x"},
        {"overwrite": True},
        {"out": "/tmp/x"},
        {"data": "/etc"},
        {"epochs": -1},
        {"epochs": "3"},
        {"gate": 1},
        {"seed": 2**40},
        {"test": 2},
        {"schedule": ["probe"]},
        {"schedule": {}},
        {"group_regex": "x" * 300},
        {"x" * 9000: 1},
    ],
)
def test_what_is_not_in_the_form_is_refused(tmp_path, given):
    with pytest.raises(UnfreezeError) as refused:
        commands.options_of(tmp_path, tmp_path / "run", given)
    assert len(str(refused.value)) < 400


@pytest.fixture
def interrupted(tmp_path):
    """Makes the folder of an interrupted run with some settings."""

    def make(**given):
        given = {
            "data": tmp_path / "lab" / "data",
            "out": tmp_path / "lab" / "runs" / "one",
        } | given
        options = TrainOptions(**given)
        config = {"command": "unfreeze train x", "options": options.as_plain()}
        run_folder.write_config(options.out, config)
        return options

    return make


def test_an_interrupted_run_is_resumed_with_its_own_settings(interrupted, tmp_path):
    options = interrupted(schedule="two_stage", seed=3, gate=False, epochs=2)
    again = commands.options_to_resume(options.out, tmp_path / "lab")
    assert again.resume
    assert again.as_plain() == options.as_plain()
    _, params = parsed(commands.as_line(commands.train_words(again)))
    assert (params["resume"], params["seed"], params["gate"]) == (True, 3, False)


def test_what_the_page_cannot_have_chosen_is_resumed_in_a_terminal(interrupted, tmp_path):
    for given in (
        {"data": tmp_path / "elsewhere"},
        {"background": tmp_path},
        {"schedule": "mine.yaml"},
        {"batch_size": 4},
        {"backbone": "mine.yaml"},
    ):
        options = interrupted(**given)
        with pytest.raises(RunError):
            commands.options_to_resume(options.out, tmp_path / "lab")
    options = interrupted(batch_size=4)
    with pytest.raises(RunError, match=r"batch_size\. In a terminal: unfreeze train x --resume"):
        commands.options_to_resume(options.out, tmp_path / "lab")
    options = interrupted()
    run_folder.write_scores(options.out, {})
    with pytest.raises(RunError, match="nothing to resume"):
        commands.options_to_resume(options.out, tmp_path / "lab")


def test_exports_and_the_page_of_a_run(tmp_path):
    run = tmp_path / ODD
    name, params = parsed(commands.as_line(commands.export_words(run, "onnx")))
    assert (name, params["run"], params["format"]) == ("export", run, "onnx")
    name, params = parsed(commands.as_line(commands.serve_words(run)))
    assert (name, params["run"], params["host"]) == ("serve", run, "127.0.0.1")
    # The page is as closed as the studio's own.
    assert params["token"]


def test_a_format_that_needs_more_says_what_to_install(monkeypatch):
    monkeypatch.setattr("unfreeze.export.formats.has_module", lambda name: False)
    assert all("pip install" in form["problem"] for form in commands.formats())
    assert {form["name"] for form in commands.formats()} >= {"litert", "onnx", "saved_model"}


def test_backbones_of_tests_are_choices_too(tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    options = commands.options_of(tmp_path, tmp_path / "run", {"backbone": "toy"})
    assert "--backbone toy" in commands.as_line(commands.train_words(options))
    assert os.fspath(options.out).endswith("run")
