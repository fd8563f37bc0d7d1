"""Commands with `--engine ray`: the same results as on this machine's own cores."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import toy
from cluster_works import local_ray
from toy_detection import scene_samples
from unfreeze.audio.cluster import Cluster
from unfreeze.cli.app import app
from unfreeze.detection.cluster_scan import open_classifier, scan_on
from unfreeze.errors import DataError
from unfreeze.search.index_folder import open_index


def call(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def ray():
    """Ray with two cores on this machine; its workers find the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        yield local_ray()
        sys.modules["ray"].shutdown()


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Recordings of several lengths and formats, and one that is none."""
    folder = tmp_path_factory.mktemp("field")
    whole = scene_samples()
    for number in range(5):
        name = f"{number}.{('wav', 'flac')[number % 2]}"
        soundfile.write(folder / name, whole[number * toy.RATE :], toy.RATE)
    (folder / "text.wav").write_text("no sound")
    return folder


def test_an_address_is_for_ray_and_ray_is_for_events(toy_run, scene, tmp_path) -> None:
    found = call("predict", toy_run, scene, "--address", "auto")
    assert "--address is of a Ray cluster: add --engine ray, or leave it out" in str(
        found.exception
    )
    found = call("embed", scene, "--out", tmp_path / "index", "--engine", "rai")
    assert "no engine 'rai': give one of local, ray" in str(found.exception)
    assert not (tmp_path / "index").exists()


WORDS = "--format", "jsonl", "--engine"


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_events_are_those_of_this_machine(toy_run, field, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("unfreeze.detection.scan._NEIGHBOURS", 2)
    for engine in ("local", "ray"):
        out = tmp_path / f"{engine}.jsonl"
        found = call(*("predict", toy_run, field, "--out", out), *WORDS, engine)
        assert found.exit_code == 1, found.output
        assert found.stderr.count("error: ") == 1
        assert f"error: {field / 'text.wav'}" in found.stderr
    here, there = (rows(tmp_path / f"{engine}.jsonl") for engine in ("local", "ray"))
    assert len(here) == len(there) > 20
    for one, other in zip(here, there, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-6)
        assert one == other
    # It resumes: only the file that could not be read is tried again.
    found = call(*("predict", toy_run, field, "--out", out), *WORDS, "ray")
    assert "5 of 6 recordings are finished already" in found.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_an_index_is_that_of_this_machine(toy_run, field, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("unfreeze.detection.scan._NEIGHBOURS", 2)
    held = {}
    for engine in ("local", "ray"):
        found = call(
            "embed", field, "--run", toy_run, "--out", tmp_path / engine, "--engine", engine
        )
        assert found.exit_code == 1, found.output
        assert f"error: {field / 'text.wav'}" in found.stderr
        index = open_index(tmp_path / engine)
        held[engine] = {
            item.path.name: (
                index.vectors(item.first, item.first + item.rows).astype(np.float32),
                index.scores(item.first, item.first + item.rows).astype(np.float32),
            )
            for item in index.recordings
        }
    assert (
        sorted(held["ray"]) == sorted(held["local"]) == sorted(f.name for f in field.iterdir())[:5]
    )
    for name, arrays in held["local"].items():
        for one, other in zip(arrays, held["ray"][name], strict=True):
            # float16: a last digit that differs by 1e-7 may round the other way.
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_scores_of_clips_are_those_of_this_machine(classifier, tmp_path) -> None:
    data = toy.write_sounds(tmp_path / "data", clips=6)
    here, seen = classifier.evaluate(data), []
    there = classifier.evaluate(data, cluster=Cluster(), progress=lambda *at: seen.append(at))
    assert here["accuracy"] == there["accuracy"]
    files = sorted(data.rglob("*.wav"))
    assert seen[-1] == (len(files), len(files))
    scan = scan_on(Cluster(), classifier.save, open_classifier)
    found = dict(scan.clip_scores(files))
    scores = np.stack([found[number] for number in range(len(files))])
    np.testing.assert_allclose(scores, classifier.predict(files), rtol=0, atol=1e-6)
    text = data / "text.wav"
    text.write_text("no sound")
    with pytest.raises(DataError, match=r"text\.wav"):
        dict(scan.clip_scores([*files, text]))
