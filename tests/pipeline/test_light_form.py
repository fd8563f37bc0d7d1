"""Runs without Keras: what a light form holds, what is refused, and what is not imported."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import toy
from light_runs import LABELS, OWN, THRESHOLDS, UNUSED, on_a_light_machine, parts, write_light
from light_runs import write_run as make_run
from toy_detection import scene_samples
from unfreeze import RunError, UnfreezeError
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.classifier import SoundClassifier
from unfreeze.pipeline import light_form
from unfreeze.pipeline.inference import all_scores, fused, patch_scores
from unfreeze.pipeline.light_form import FILE, LightModel, load_any, model_digest, read_light_form

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

RNG = np.random.default_rng(2)
LAYER = RNG.normal(0, 0.3, (64, 3)).astype(np.float32), np.array([0.1, -0.2, 0.0], np.float32)
BOTH = RNG.normal(0, 0.3, (64, 2)).astype(np.float32), np.array([0.5, 0.0], np.float32)


@pytest.fixture
def made(tmp_path):
    """A run with a light form of known weights; its `.keras` file is none."""
    (tmp_path / "any.keras").write_bytes(b"weights")
    return make_run(tmp_path / "run", tmp_path / "any.keras", LAYER, BOTH)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Toy sounds, a scene with known events, and a run of Keras with its light form."""
    import keras

    from toy_detection import toy_model

    folder = tmp_path_factory.mktemp("light")
    model = toy_model(toy.write_sounds(folder / "data", clips=6))
    model.save(folder / "toy.keras")
    (layer,) = [x for x in model.get_layer("patch_classifier").layers if x.weights]
    weights = [keras.ops.convert_to_numpy(x) for x in (layer.kernel, layer.bias)]
    make_run(folder / "run", folder / "toy.keras", weights)
    soundfile.write(folder / "scene.wav", scene_samples(), toy.RATE)
    table = "start,end,label\n5,8,high\n12,14.5,low\n"
    (folder / "scene.csv").write_text(table)
    return folder


def softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 5, 33, 100])
def test_scores_are_the_networks_however_many_patches_there_are(made, count):
    given = RNG.normal(size=(count, 96, 64)).astype(np.float32)
    means = given.mean(axis=1)
    classes = softmax(means @ LAYER[0] + LAYER[1])
    own = 1 / (1 + np.exp(-(means @ BOTH[0] + BOTH[1])))
    found = read_light_form(made).parts
    np.testing.assert_allclose(all_scores(found.patch_model, given), classes, atol=2e-6)
    both = all_scores(found.own.model, given)
    np.testing.assert_allclose(both, np.concatenate([classes, own], axis=1), atol=2e-6)
    # Patches are not filled up to a batch, and nothing is left to fuse.
    assert patch_scores(found.patch_model, given[:3]).shape == (min(count, 3), 3)
    assert fused(found.patch_model) is found.patch_model


def test_all_that_a_classifier_consists_of_is_in_the_file(made):
    form = read_light_form(made)
    wanted = parts(own=True)
    assert form.parts.labels == LABELS
    assert form.parts.front_end == FrontEnd()
    assert (form.parts.multilabel, form.parts.notice) == (False, "")
    assert (form.parts.own.labels, form.parts.own.key, form.parts.own.title) == (OWN, "own", "Toy")
    assert isinstance(form.parts.patch_model, LightModel)
    assert light_form.settings_of(wanted, made / "model.keras")["model_sha256"] == form.model_sha256


def test_a_classifier_loads_from_it_on_demand(made, monkeypatch):
    monkeypatch.setenv("UNFREEZE_RUNTIME", "onnx")
    classifier = SoundClassifier.load(made)
    assert classifier.labels == LABELS
    assert classifier.published_labels == OWN
    assert classifier.thresholds.tolist() == list(THRESHOLDS.values())
    waveform = RNG.normal(0, 0.1, 40_000).astype(np.float32)
    patches = patches_of(waveform, classifier.front_end)
    wanted = softmax(patches.mean(axis=1) @ LAYER[0] + LAYER[1]).mean(axis=0)
    np.testing.assert_allclose(classifier.predict(waveform), wanted, atol=2e-6)
    np.testing.assert_allclose(classifier.predict_both(waveform)[0], wanted, atol=2e-6)
    for asked in (lambda: classifier.model, lambda: classifier.save(made / "again.keras")):
        with pytest.raises(RunError, match=r"light\.onnx, without Keras.*unset UNFREEZE_RUNTIME"):
            asked()


def test_a_runtime_that_there_is_not_is_refused(made, monkeypatch):
    monkeypatch.setenv("UNFREEZE_RUNTIME", "tflite")
    with pytest.raises(UnfreezeError, match="UNFREEZE_RUNTIME is tflite: set it to keras or onnx"):
        load_any(made)


def test_another_model_than_the_one_it_was_made_of_is_refused(made):
    (made / "model.keras").write_bytes(b"other weights")
    told = r"another model than .*model\.keras.*: unfreeze export .*run --format onnx --overwrite"
    with pytest.raises(RunError, match=told):
        read_light_form(made)


def test_without_the_keras_file_the_light_form_is_enough(made):
    before = model_digest(made)
    (made / "model.keras").unlink()
    assert read_light_form(made).parts.labels == LABELS
    assert model_digest(made) == before


def test_the_form_of_another_run_is_refused_without_the_keras_file_too(made):
    """Its thresholds, in `metrics.json`, would be those of another network."""
    (made / "model.keras").unlink()
    with (made / "config.yaml").open("a") as config:
        config.write("seed: 1\n")
    told = r"light\.onnx is of another run than .*config\.yaml.*of one run, or make it"
    with pytest.raises(RunError, match=told):
        read_light_form(made)


def test_a_missing_form_is_told_with_the_command_that_makes_it(made):
    (made / FILE).unlink()
    with pytest.raises(RunError, match=r"has no light\.onnx.*unfreeze export .*--format onnx"):
        read_light_form(made)


def test_without_onnx_runtime_both_ways_are_named(made, monkeypatch):
    monkeypatch.setattr(light_form, "has_module", lambda name: False)
    told = r"no backend of Keras is installed.*unfreeze\[light\]'.*unfreeze\[tensorflow\]'"
    with pytest.raises(RunError, match=told):
        read_light_form(made)


def test_a_keras_file_is_refused_where_keras_cannot_run(made, monkeypatch):
    monkeypatch.setenv("UNFREEZE_RUNTIME", "onnx")
    told = r"model\.keras runs on Keras alone.*RUNTIME is onnx.*give the run's folder.*unset"
    with pytest.raises(RunError, match=told):
        SoundClassifier.load(made / "model.keras")


def damaged(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def of_other_classes(file):
    settings = light_form.settings_of(parts(labels=("a", "b")), file.with_name("model.keras"))
    write_light(file, *LAYER, settings)


def of_a_newer_format(file):
    settings = light_form.settings_of(parts(), file.with_name("model.keras"))
    write_light(file, *LAYER, {**settings, "unfreeze_light": 2})


def of_something_else(file):
    import onnx

    write_light(file, *LAYER, {})
    model = onnx.load(str(file))
    del model.metadata_props[:]
    onnx.save(model, str(file))


def without_settings(file):
    write_light(file, *LAYER, {})


def with_a_file_beside(file):
    """Weights in another file, which could be any file of the machine."""
    import onnx

    settings = light_form.settings_of(parts(), file.with_name("model.keras"))
    write_light(file, *LAYER, settings)
    model = onnx.load(str(file))
    onnx.save(model, str(file), save_as_external_data=True, location="beside.bin", size_threshold=0)
    assert file.with_name("beside.bin").is_file()


@pytest.mark.parametrize(
    "spoil",
    [
        damaged,
        empty,
        of_other_classes,
        of_a_newer_format,
        of_something_else,
        without_settings,
        with_a_file_beside,
    ],
)
def test_a_file_that_is_no_light_form_is_refused(spoil, made):
    spoil(made / FILE)
    with pytest.raises(RunError, match=r"light\.onnx is no light form .*unfreeze export") as told:
        read_light_form(made)
    assert "\n" not in str(told.value)


def run(home, code, **env):
    done = subprocess.run(
        [sys.executable, "-c", on_a_light_machine(code)],
        cwd=home,
        env={**os.environ, "UNFREEZE_CACHE": str(home / "cache"), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_every_command_of_a_light_machine_gives_what_keras_gives(home):
    """Without Keras and whatever only training needs: clips, events, scores and live sound."""
    done = run(
        home,
        f"""
        import contextlib, io, json, os
        from unfreeze.cli import main

        def told(*words):
            sys.argv = ["unfreeze", *words]
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                try:
                    main()
                except SystemExit as left:
                    assert not left.code, left.code
            return out.getvalue()

        found = {{"clips": json.loads(told("predict", "run", "data/high/high_0.wav", "--json"))}}
        imported = [name for name in {UNUSED!r} if name in sys.modules]
        found["events"] = told("predict", "run", "scene.wav", "--format", "jsonl")
        found["finer"] = told("predict", "run", "scene.wav", "--hop", "0.1", "--format", "jsonl")
        with open("scene.wav", "rb") as sound:
            os.dup2(sound.fileno(), 0)
        found["live"] = told("listen", "run", "-", "--format", "jsonl")
        found["scores"] = json.loads(told("evaluate", "run", "data", "--json"))
        words = ("evaluate", "run", "scene.wav", "--annotations", "scene.csv", "--json")
        found["detector"] = json.loads(told(*words))
        print(json.dumps({{**found, "imported": imported}}))
        """,
    )
    assert done.returncode == 0, done.stderr
    light = json.loads(done.stdout)
    assert light["imported"] == []
    classifier = SoundClassifier.load(home / "run")
    clip = home / "data/high/high_0.wav"
    wanted = dict(zip(LABELS, classifier.predict(clip).tolist(), strict=True))
    assert light["clips"][0]["heard"] == ["high"]
    assert light["clips"][0]["classes"] == pytest.approx(wanted, abs=1e-5)
    for name, hop in (("events", None), ("finer", 0.1)):
        rows = [json.loads(line) for line in light[name].splitlines()]
        events = classifier.detect(home / "scene.wav", hop=hop)
        # Printed to the millisecond.
        assert [x["label"] for x in rows] == [e.label for e in events]
        bounds = [(e.start, e.end) for e in events]
        assert np.abs(np.array([(x["start"], x["end"]) for x in rows]) - bounds).max() < 6e-4
        assert [x["score"] for x in rows] == pytest.approx([e.score for e in events], abs=1e-3)
        assert {e.label for e in events} == {"high", "low", "noise"}
    began = [row["label"] for row in map(json.loads, light["live"].splitlines())]
    assert {"high", "low"} <= set(began)
    scores = classifier.evaluate(home / "data")
    assert light["scores"]["accuracy"] == scores["accuracy"] == 1
    assert light["scores"]["loss"] == pytest.approx(scores["loss"], abs=1e-5)
    detector = classifier.evaluate_events(home / "scene.wav", home / "scene.csv")
    assert light["detector"]["overall"] == json.loads(json.dumps(detector["overall"]))


def test_the_server_answers_from_it(home, monkeypatch):
    for package in ("fastapi", "httpx", "python_multipart"):
        pytest.importorskip(package)
    from starlette.testclient import TestClient

    from unfreeze.serve.web_app import create_app

    monkeypatch.setenv("UNFREEZE_RUNTIME", "onnx")
    classifier = SoundClassifier.load(home / "run")
    clip = home / "data/low/low_0.wav"
    with TestClient(create_app(classifier, local_only=False)) as client:
        answer = client.post("/predict", files={"file": clip.read_bytes()}).json()
    wanted = dict(zip(LABELS, classifier.predict(clip).tolist(), strict=True))
    assert answer["classes"] == pytest.approx(wanted, abs=1e-5)
    assert answer["heard"] == ["low"]


def test_what_needs_a_backend_says_so_in_one_line(home):
    """In each case with the command that installs one, and before any work."""
    commands = [
        ["train", "data", "--out", "new"],
        ["embed", "scene.wav", "--out", "index", "--run", "run"],
        ["inspect", "data", "--depths"],
        ["demo", "--out", "demo"],
        ["report", "run"],
        ["review", "run", "scene.wav"],
        ["evaluate", "run", "data", "--out", "scores"],
        ["export", "run", "--format", "onnx"],
    ]
    done = run(
        home,
        f"""
        import unfreeze
        from unfreeze.cli import main

        for words in {commands!r}:
            sys.argv = ["unfreeze", *words]
            try:
                main()
            except SystemExit as left:
                assert left.code == 2, words
        for ask in (
            lambda: unfreeze.fit,
            lambda: unfreeze.SoundClassifier.train("data", out="new", backbone="yamnet"),
        ):
            try:
                ask()
            except unfreeze.UnfreezeError as error:
                print("error:", error, file=sys.stderr)
        """,
        KERAS_BACKEND="",
        KERAS_HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(commands) + 2, done.stderr
    for line in lines:
        assert re.match(r"error: .*pip install \S", line), line
    # Nothing was begun.
    assert not {"new", "index", "demo", "demo-sounds", "scores"} & {x.name for x in home.iterdir()}


def test_keras_own_file_does_not_choose_a_backend_that_is_missing(home, tmp_path):
    """Keras writes it with TensorFlow in it, whether that is there or not."""
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "tensorflow"}))
    done = run(
        home,
        """
        from unfreeze.backend import choose_backend, choose_runtime
        from unfreeze.errors import UnfreezeError

        print(choose_runtime())
        try:
            choose_backend()
        except UnfreezeError as error:
            print(error)
        """,
        KERAS_BACKEND="",
        KERAS_HOME=str(tmp_path),
    )
    assert done.stdout.splitlines() == [
        "onnx",
        "This needs Keras on a backend, and none is installed. Install one with: pip install "
        "'unfreeze[tensorflow]'",
    ]
