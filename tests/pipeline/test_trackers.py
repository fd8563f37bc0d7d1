"""A run that TensorBoard and MLflow are told of is the same run."""

import sys
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

import toy
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline import trackers as module
from unfreeze.pipeline.trackers import MLflowLog, trackers
from unfreeze.pipeline.train_options import TrainOptions, command_line
from unfreeze.planning import train_classifier


@pytest.mark.slow
def test_numbers_of_all_epochs_are_sent(monkeypatch, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorboard")
    mlflow = pytest.importorskip("mlflow")
    toy.register(monkeypatch, tmp_path)
    data = toy.write_sounds(tmp_path / "data", clips=6, classes=("high", "low"))
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    settings = {"backbone": "toy", "schedule": "two_stage", "taps": "none", "epochs": 1, "seed": 7}
    options = TrainOptions(data, tensorboard=tmp_path / "board", mlflow=store, **settings)
    history = train_classifier(options).result.history
    (file,) = (tmp_path / "board" / "train").glob("*.v2")
    losses = [
        (event.step, tensorflow.make_ndarray(value.tensor).item())
        for event in tensorflow.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == "epoch_loss"
    ]
    assert losses == [(n, pytest.approx(row["loss"])) for n, row in enumerate(history)]
    client = mlflow.MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("unfreeze").experiment_id])
    assert (found.info.status, found.data.params["seed"]) == ("FINISHED", "7")
    sent = client.get_metric_history(found.info.run_id, "loss")
    assert [(x.step, x.value) for x in sent] == losses
    # They are no part of what the run is.
    assert "board" not in command_line(options)
    assert options.as_plain() == TrainOptions(data, **settings).as_plain()


def test_what_mlflow_is_told(monkeypatch):
    class Recorder(ModuleType):
        told: ClassVar[list] = []

        def __getattr__(self, name):
            return lambda *args, **kwargs: self.told.append((name, *args, kwargs))

    monkeypatch.setitem(sys.modules, "mlflow", Recorder("mlflow"))
    log = MLflowLog("http://localhost:5000", {"seed": 7})
    log.on_train_begin()
    log.on_epoch_end(3, {"loss": np.float32(0.5), "auc": np.nan})
    log.on_train_end()
    assert Recorder.told == [
        ("set_tracking_uri", "http://localhost:5000", {}),
        ("set_experiment", "unfreeze", {}),
        ("start_run", {"nested": True}),
        ("log_params", {"seed": 7}, {}),
        ("log_metrics", {"loss": 0.5}, {"step": 3}),
        ("end_run", {}),
    ]


def test_what_is_missing_is_named(monkeypatch):
    assert trackers(TrainOptions("data")) == []
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UnfreezeError, match=r"--mlflow needs mlflow: pip install mlflow-skinny"):
        trackers(TrainOptions("data", mlflow="http://localhost:5000"))
    with pytest.raises(UnfreezeError, match="--tensorboard needs tensorflow and tensorboard: pip"):
        trackers(TrainOptions("data", tensorboard="runs"))
