"""The examples in docstrings run, and every public name has one.

In them `model` is a small network for pictures with a head of three classes on `base`, `x` and
`y` are pictures and labels, and the folder holds `recordings` and `new.wav`.
"""

import doctest
import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import toy
import unfreeze

SOURCE = Path(unfreeze.__file__).parent
MODULES = [
    ".".join(("unfreeze", *path.relative_to(SOURCE).with_suffix("").parts))
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>>" in path.read_text("utf-8")
]
EXAMPLES = {
    found.name: found
    for name in MODULES
    for found in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if found.examples
}
# Slow or impossible on other backends.
TENSORFLOW = "unfreeze.export.exporter.export_model"

# Caught, not called; `UnfreezeError`, the base class, has an example for all.
ERRORS = {name for name in unfreeze.__all__ if name.endswith("Error")} - {"UnfreezeError"}
ERRORS.add("Stopped")


def marked(name):
    marks = [pytest.mark.needs_backend("tensorflow")] if name == TENSORFLOW else []
    return pytest.param(name, marks=marks, id=name.removeprefix("unfreeze."))


@pytest.fixture
def names(monkeypatch, tmp_path):
    """What the examples may use."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    layers, rng = keras.layers, np.random.default_rng(0)
    y = np.arange(96) % 3
    x = rng.normal(size=(96, 8, 8, 3)).astype("float32")
    x[np.arange(96), :, :, y] += 1
    pictures = keras.Input((8, 8, 3))
    z = pictures
    for number, width in enumerate((16, 32), start=1):
        z = layers.Conv2D(width, 3, 2, "same", activation="relu", name=f"block{number}_conv")(z)
    z = layers.Conv2D(2, 3, padding="same", name="block3_conv")(z)
    base = keras.Model(pictures, z, name="base")
    outputs = layers.Dense(3, "softmax", name="head")(layers.Flatten()(z))
    return {
        "unfreeze": unfreeze,
        "keras": keras,
        "np": np,
        "base": base,
        "model": keras.Model(pictures, outputs),
        "x": x,
        "y": y,
    }


@pytest.fixture
def sounds(monkeypatch, tmp_path, names):
    """Recordings, with a small network in the place of YAMNet."""
    toy.register(monkeypatch, tmp_path)
    monkeypatch.setitem(toy.BACKBONES, "yamnet", toy.BACKBONES["toy"])
    toy.write_sounds(Path("recordings"))
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(toy.RATE) / toy.RATE)
    soundfile.write("new.wav", tone, toy.RATE)


@pytest.mark.parametrize("name", [marked(name) for name in EXAMPLES])
def test_an_example_runs(name, names, request):
    example = EXAMPLES[name]
    if re.search('"(run|recordings|new.wav)"', example.docstring):
        request.getfixturevalue("sounds")
    if name == TENSORFLOW:
        unfreeze.SoundClassifier.train("recordings", out="run", schedule="probe")
    example.globs.update(names)
    told = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.DocTestRunner(optionflags=options).run(example, out=told.append)
    assert tried == len(example.examples)
    assert not failed, "".join(told)
    assert not any(doctest.SKIP in one.options for one in example.examples)


def test_every_public_name_has_an_example():
    without = []
    for name in unfreeze.__all__:
        thing = getattr(unfreeze, name)
        kin = isinstance(thing, type) and issubclass(
            thing, unfreeze.UnfreezeError | KeyboardInterrupt
        )
        if isinstance(thing, str) or (kin and thing is not unfreeze.UnfreezeError):
            continue
        if f"{thing.__module__}.{thing.__qualname__}" not in EXAMPLES:
            without.append(name)
    assert not without
