"""Models with layers of the user's own: planned once their classes are named."""

import json
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner, Result

from unfreeze.cli.app import app
from unfreeze.core.keras_file import named_objects
from unfreeze.errors import UnfreezeError

CODE = """
import keras

class Block(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, x):
        return x * self.scale

@keras.saving.register_keras_serializable(package="mine")
class Other(Block):
    pass

number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module and a model that has layers of its classes."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_own_layers.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        named = named_objects(["my_own_layers:Block", "my_own_layers:Other"])
    assert set(named) == {"Block", "Other", "mine>Other"}
    x = keras.Input((4,))
    y = named["Other"](name="other")(named["Block"](name="block")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="top")(y))
    model.save(folder / "model.keras")
    return folder


def plan(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Result:
    monkeypatch.chdir(folder)
    words = [word for name in names for word in ("--custom-objects", name)]
    words = ["plan", "model.keras", "--schedule", "full", "--json", *words]
    return CliRunner().invoke(app, words)


def test_classes_that_are_named_are_loaded(folder, monkeypatch):
    result = plan(folder, monkeypatch, "my_own_layers:Block", "my_own_layers:Other")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["stages"][0]["trains"] == ["block", "other", "top"]


def test_others_are_refused_with_the_words_that_allow_them(folder, monkeypatch):
    error = plan(folder, monkeypatch, "my_own_layers:Block").exception
    assert isinstance(error, UnfreezeError)
    assert "it has a mine>Other, which belongs neither to Keras nor to unfreeze" in str(error)
    assert str(error).endswith("If it is yours: --custom-objects my_own_layers:Other")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Block", "--custom-objects Block: give module:Name, such as my_layers:Block"),
        (
            "no_such_layers:Block",
            "cannot be imported .*: run the command in its folder",
        ),
        ("my_own_layers:Blok", "my_own_layers has no Blok. Did you mean 'Block'"),
        ("my_own_layers:number", "number is neither a class nor a function"),
    ],
)
def test_names_that_lead_nowhere_are_refused(folder, monkeypatch, text, reason):
    monkeypatch.chdir(folder)
    with pytest.raises(UnfreezeError, match=reason):
        named_objects([text])


def test_code_in_the_file_stays_refused(folder, monkeypatch):
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Lambda(lambda x: x)(x)).save(folder / "model.keras")
    error = plan(folder, monkeypatch, "keras.layers:Lambda").exception
    assert isinstance(error, UnfreezeError)
    assert "which can run code from the file" in str(error)
