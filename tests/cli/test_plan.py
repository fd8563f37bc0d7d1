"""`unfreeze plan`: from a backbone or a model file to a table and a YAML file."""

import json
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner, Result

from unfreeze.cli.app import app
from unfreeze.core.presets import gradual, preset
from unfreeze.core.schedule_file import read_schedule, write_schedule
from unfreeze.errors import ScheduleError, UnfreezeError

layers = keras.layers


def run(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *map(str, words)])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = x = keras.Input((8, 8, 1))
    for i in (1, 2):
        x = layers.Conv2D(4, 3, padding="same", name=f"block{i}_a")(x)
        x = layers.Conv2D(4, 3, padding="same", name=f"block{i}_b")(x)
    outputs = layers.Dense(2, name="top")(layers.GlobalAveragePooling2D(name="pool")(x))
    file = tmp_path_factory.mktemp("model") / "mine.keras"
    keras.Model(inputs, outputs).save(file)
    return file


def test_yamnet_gradually_and_the_file_it_writes(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    result = run("yamnet", "--schedule", "gradual", "--taps", "none", "--write", file)
    assert result.exit_code == 0, result.output
    assert "gradual on yamnet" in result.output
    assert "after block10_pointwise_relu" in result.output
    assert "48 KB" in result.output
    assert max(map(len, result.output.splitlines())) <= max(80, len(str(file)) + 60)
    assert read_schedule(file) == gradual(head="transfer_*")


def test_a_schedule_file_is_read_back_and_json_has_the_numbers(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    write_schedule(preset("head_only", head="transfer_*"), file)
    result = run("yamnet", "--schedule", file, "--taps", "none", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["schedule"]["name"] == "head_only"
    assert report["written"] is None
    (stage,) = report["stages"]
    assert stage["trains"] == ["transfer_dense", "transfer_output"]
    assert stage["weights_trained"] == 1024 * 64 + 64 + 64 * 10 + 10
    assert stage["boundary"] == ["embedding"]
    assert stage["cache_bytes"] == 4096
    (stage,) = json.loads(run("yamnet", "--schedule", "probe", "--json").stdout)["stages"]
    assert stage["trains"] == ["transfer_output"]
    assert stage["boundary"] == ["transfer_projection"]
    assert stage["cache_bytes"] == 1024


def test_a_model_file(model_file: Path) -> None:
    result = run(model_file, "--schedule", "two_stage", "--json")
    assert result.exit_code == 0, result.output
    head, everything = json.loads(result.stdout)["stages"]
    assert head["trains"] == ["top"]
    assert head["boundary"] == ["pool"]
    assert everything["weights_trained"] == everything["weights_total"]


def test_a_saved_sound_classifier_is_planned_as_it_trains(tmp_path: Path) -> None:
    from unfreeze.audio.clip_model import clip_model, patch_model
    from unfreeze.backbones.frontend import FrontEnd

    inputs = keras.Input((96, 64))
    x = layers.Dense(4, name="base")(layers.Flatten()(inputs))
    patches = patch_model(keras.Model(inputs, x), classes=2, seed=0)
    clip_model(patches, FrontEnd(), ("cat", "dog")).save(tmp_path / "model.keras")
    result = run(tmp_path / "model.keras", "--schedule", "two_stage", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["stages"][0]["trains"] == ["transfer_dense", "transfer_output"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["yamnett"], "Unknown backbone 'yamnett'.*Did you mean 'yamnet'"),
        (["none.keras"], "none.keras does not exist"),
        ([__file__], "give a .keras file"),
    ],
)
def test_models_that_are_refused(words: list[str], reason: str) -> None:
    result = run(*words)
    assert isinstance(result.exception, UnfreezeError)
    with pytest.raises(UnfreezeError, match=reason):
        raise result.exception


def test_a_damaged_model_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.keras"
    file.write_bytes(b"PK no zip")
    result = run(file)
    assert isinstance(result.exception, UnfreezeError)
    assert "is not a complete .keras file" in str(result.exception)


def test_schedules_that_are_refused(tmp_path: Path) -> None:
    assert isinstance(run("yamnet", "--schedule", "gradually").exception, ScheduleError)
    file = tmp_path / "plan.yaml"
    file.write_text("unfreeze_schedule: 1\nstages:\n- name: a\n  epoch: 3\n")
    result = run("yamnet", "--schedule", file)
    assert isinstance(result.exception, ScheduleError)
    assert "plan.yaml:4: a stage: unknown key 'epoch'. Did you mean 'epochs'?" in str(
        result.exception
    )


def test_an_edited_plan_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("mine")
    result = run("yamnet", "--write", file)
    assert isinstance(result.exception, ScheduleError)
    assert "exists: choose another name" in str(result.exception)
    assert file.read_text() == "mine"
