"""Several devices: equal to one, what they leave out, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from small_runs import X, Y, make, run
from unfreeze.core.data import ShuffledRows, as_data
from unfreeze.core.data_parallel import check_available, left_out, whole_batches
from unfreeze.errors import ScheduleError

# Two devices of a processor have to be asked for before JAX starts.
PROGRAM = """
import numpy as np
from small_runs import HELD, X, Y, make, run
from unfreeze.core import data_parallel
from unfreeze.core.schedule import Schedule, Stage

stages = (
    Stage("head", "head", epochs=2, learning_rate=0.05, cache="always"),
    Stage("all", "all", epochs=2, learning_rate=0.01, batch_norm="train", keep="last"),
)
layouts = []
plain = data_parallel.EvenParts.get_data_layout

def watched(self, shape):
    layout = plain(self, shape)
    layouts.append((shape[0], layout.axes[0]))
    return layout

data_parallel.EvenParts.get_data_layout = watched
found = {}
for devices in (1, 2):
    model = make()
    result = run(model, Schedule(stages), devices=devices)
    names = ("loss", "val_loss", "val_loss_error")
    rows = [[row[name] for name in names] for row in result.history]
    found[devices] = model.get_weights(), np.array(rows)
    assert (8, "batch") in layouts if devices == 2 else not layouts
    # The model is on one device again, and can be used.
    assert np.isclose(model.evaluate(*HELD, verbose=0)[0], rows[-1][1], atol=1e-5)
    model.fit(X, Y, batch_size=8, verbose=0)
for one, two in zip(found[1][0], found[2][0], strict=True):
    np.testing.assert_allclose(one, two, atol=1e-5)
np.testing.assert_allclose(found[1][1], found[2][1], atol=1e-5)

# Unequal parts: a sample is left out of training, none of validation.
layouts.clear()
model = make()
held = X[:9], Y[:9]
result = run(model, Schedule(stages[1:]), (X[:21], Y[:21]), validation_data=held, devices=2)
assert (9, None) in layouts and (8, "batch") in layouts
known = model.evaluate(*held, verbose=0)[0]
assert np.isclose(result.history[-1]["val_loss"], known, atol=1e-5)
print("equal")
"""


@pytest.mark.on_each_backend
@pytest.mark.needs_backend("jax")
def test_two_devices_give_what_one_gives():
    flags = "--xla_force_host_platform_device_count=2"
    here = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(here), *filter(None, sys.path)])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "PYTHONPATH": paths}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


@pytest.mark.parametrize("devices", [0, -1, 1.5, "2", True])
def test_a_number_of_devices_is_a_whole_number(devices):
    with pytest.raises(ScheduleError, match="must be a whole number, at least 1"):
        run(devices=devices)


@pytest.mark.on_each_backend
def test_what_a_backend_cannot_do_is_refused_with_the_reason():
    reason = {
        "tensorflow": "tf.distribute, whose variables must be made under its strategy",
        "torch": "Keras has no training on several devices for PyTorch: use the JAX backend",
        "jax": r"JAX sees \d+ \((cpu|gpu|cuda):0",
    }[keras.backend.backend()]
    with pytest.raises(ScheduleError, match=reason):
        check_available(64)


@pytest.fixture
def two_devices(monkeypatch):
    """As if the machine had two: for what is refused before either is used."""
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr("keras.distribution.list_devices", lambda: ["cpu:0", "cpu:1"])
    monkeypatch.setattr("unfreeze.core.data_parallel.processes", lambda: 1)


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        ((X, Y), {"batch_size": 7}, "a batch of 7 does not divide among them. .* such as 8"),
        ((X[:1], Y[:1]), {}, "there are only 1 samples"),
        (None, {}, "makes its own batches, which may not divide among the devices: give arrays"),
    ],
)
def test_data_that_do_not_divide_are_refused(two_devices, data, settings, reason):
    if data is None:
        data = ShuffledRows(as_data((X, Y), make()), 8, 0)
    with pytest.raises(ScheduleError, match=reason):
        run(devices=2, data=data, **settings)


def test_several_processes_are_refused(two_devices, monkeypatch):
    monkeypatch.setattr("unfreeze.core.data_parallel.processes", lambda: 2)
    with pytest.raises(ScheduleError, match="one of 2 JAX processes"):
        check_available(2)


@pytest.mark.parametrize(
    ("count", "size", "parts"), [(21, 8, 2), (24, 8, 4), (17, 8, 2), (3, 8, 2)]
)
def test_batches_divide_and_what_is_left_out_changes(count, size, parts):
    data = as_data((X[:count], Y[:count]), make())
    feed = ShuffledRows(data, size, 0)
    feed.divide(parts)
    seen = []
    for _ in range(2):
        batches = [feed[i][0] for i in range(len(feed))]
        assert all(len(batch) % parts == 0 for batch in batches)
        seen.append(sum(len(batch) for batch in batches))
        feed.on_epoch_end()
    assert seen == [count - count % size % parts] * 2
    told = left_out(data, [size], parts)
    assert (told is None) == (count % size % parts == 0)
    if told is not None:
        assert told.startswith(f"{count % size % parts} of {count} samples, others in each epoch")


def test_validation_is_never_short():
    for count in range(1, 40):
        for parts in (2, 3, 4):
            size = whole_batches(count, 12, parts)
            sizes = [size] * (count // size) + [count % size] * bool(count % size)
            assert all(own % parts == 0 for own in sizes) or sizes[0] % parts
