"""Models and run folders that a stranger made: nothing in them runs, nothing leads out."""

import ast
import io
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import toy
import unfreeze
from unfreeze.audio.clip_model import clip_model, patch_model
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.core import keras_file
from unfreeze.core.schedule_file import read_schedule
from unfreeze.errors import RunError, ScheduleError
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.saved_model import load_classifier, load_clip_model
from unfreeze.review.old_run import inherited_options, run_source

SOURCES = Path(unfreeze.__file__).parent


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A sound classifier that nobody has trained."""
    file = tmp_path_factory.mktemp("model") / "model.keras"
    clip_model(patch_model(toy.build_toy(), 2, seed=0), FrontEnd(), ("a", "b")).save(file)
    return file


def members(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file


def with_config(model_file, file, change):
    """The model with another configuration."""
    content = members(model_file)
    config = json.loads(content["config.json"])
    change(config)
    return write(file, {**content, "config.json": json.dumps(config)})


def layer(config, kind):
    """The first layer of a class, at whatever depth."""
    return next(part for part in keras_file._objects(config) if part["class_name"] == kind)


def test_an_honest_model_is_loaded(model_file, tmp_path):
    assert load_clip_model(model_file).get_layer("clip_mean").labels == ("a", "b")
    # Packed again by somebody, with compression.
    packed = write(tmp_path / "m.keras", members(model_file), zipfile.ZIP_DEFLATED)
    assert load_clip_model(packed).get_layer("clip_mean").labels == ("a", "b")


RAN = []


def run_me(*args, **kwargs):
    RAN.append(args)
    return args[0] if args else None


@keras.saving.register_keras_serializable(package="stranger")
class Custom(keras.layers.Layer):
    """Registered in this very process, so that Keras alone would make it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        run_me()

    def call(self, x):
        return x


def as_lambda(config):
    function = keras.layers.Lambda(lambda x: run_me(x)).get_config()["function"]
    layer(config, "ReLU").update(
        class_name="Lambda", config={"name": "r", "function": function, "arguments": {}}
    )


def as_custom(config):
    layer(config, "ReLU").update(
        module="stranger", class_name="Custom", registered_name="stranger>Custom", config={}
    )


def as_system(config):
    layer(config, "ReLU").update(module="os", class_name="system", config={"command": "true"})


def as_function(config):
    part = {"class_name": "function", "config": "run_me", "module": __name__}
    layer(config, "Dense")["config"]["activation"] = {**part, "registered_name": "run_me"}


def as_saved_model(config):
    layer(config, "ReLU").update(class_name="TFSMLayer", config={"filepath": "/tmp/evil"})


def as_torch(config):
    layer(config, "ReLU").update(class_name="TorchModuleWrapper", config={"module": "AAAA"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (as_lambda, "Lambda, which can run code from the file"),
        (as_custom, "stranger>Custom, which belongs neither to Keras nor to unfreeze"),
        (as_system, r"os\.system, which belongs neither"),
        (as_function, "run_me, which belongs neither"),
        (as_saved_model, "TFSMLayer, which can run code"),
        (as_torch, "TorchModuleWrapper, which can run code"),
    ],
)
def test_code_and_objects_of_others_are_refused(change, told, model_file, tmp_path):
    file = with_config(model_file, tmp_path / "m.keras", change)
    RAN.clear()
    with pytest.raises(RunError, match=told):
        load_clip_model(file)
    with pytest.raises(RunError, match=told):
        unfreeze.SoundClassifier.load(file)
    assert RAN == []


def test_the_check_is_needed_for_what_the_process_has_registered(model_file, tmp_path):
    """What Keras' own safe mode lets pass: without our check this object is made."""
    file = with_config(model_file, tmp_path / "m.keras", as_custom)
    RAN.clear()
    keras.saving.load_model(file, compile=False, safe_mode=True)
    assert RAN != []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../evil.txt", "leads out of the archive"),
        ("assets/../../evil.txt", "leads out of the archive"),
        ("/tmp/evil.txt", "leads out of the archive"),
        ("C:\\evil.txt", "leads out of the archive"),
        ("..\\evil.txt", "leads out of the archive"),
        ("evil.py", "does not belong in a Keras model"),
        ("config.json", "does not belong in a Keras model"),  # twice
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_members_that_lead_out_or_do_not_belong_are_refused(name, told, model_file, tmp_path):
    file = Path(shutil.copy(model_file, tmp_path / "m.keras"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(RunError, match=told):
        load_clip_model(file)
    assert [p.name for p in tmp_path.rglob("*")] == ["m.keras"]


def test_a_link_in_the_archive_is_refused(model_file, tmp_path):
    file = Path(shutil.copy(model_file, tmp_path / "m.keras"))
    info = zipfile.ZipInfo("assets/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(RunError, match="'assets/link' in it leads out"):
        load_clip_model(file)


@pytest.mark.parametrize(
    ("name", "size"), [("model.weights.h5", 1 << 28), ("config.json", 1 << 26)]
)
def test_a_bomb_is_refused_before_it_is_unpacked(name, size, model_file, tmp_path, monkeypatch):
    content = {**members(model_file), name: b"0" * size}
    file = write(tmp_path / "m.keras", content, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < size / 100
    monkeypatch.setattr(zipfile.ZipFile, "read", None)  # nothing is unpacked
    with pytest.raises(RunError, match=rf"'{name}' in it would take \d+ MB of memory"):
        load_clip_model(file)


def test_a_size_that_is_a_lie_is_refused(model_file, tmp_path):
    """The archive says that a member is small, and it is not."""
    content = {**members(model_file), "config.json": b" " * 5_000_000}
    file = write(tmp_path / "m.keras", content, zipfile.ZIP_DEFLATED)
    data = file.read_bytes()
    file.write_bytes(data.replace((5_000_000).to_bytes(4, "little"), (500).to_bytes(4, "little")))
    with pytest.raises(RunError, match=r"not a complete \.keras file|would take|cannot be read"):
        load_clip_model(file)


def test_other_files_with_the_name_of_a_model_are_refused(model_file, tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        load_clip_model(tmp_path / "none.keras")
    # Keras would take a folder, a file of its older format, and a pickle by its suffix.
    folder = tmp_path / "m.keras"
    folder.mkdir()
    (folder / "config.json").write_bytes(members(model_file)["config.json"])
    with pytest.raises(RunError, match="does not exist: give a run folder"):
        load_clip_model(folder)
    other = tmp_path / "m.h5"
    other.write_bytes(b"")
    with pytest.raises(RunError, match=r"is not a \.keras file"):
        load_clip_model(other)
    other = tmp_path / "p.keras"
    other.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(RunError, match=r"not a complete \.keras file"):
        load_clip_model(other)
    missing = {n: c for n, c in members(model_file).items() if n != "model.weights.h5"}
    with pytest.raises(RunError, match=r"has no model\.weights\.h5"):
        load_clip_model(write(tmp_path / "w.keras", missing))
    deep = {**members(model_file), "config.json": "[" * 100_000 + "]" * 100_000}
    with pytest.raises(RunError, match="cannot be read"):
        load_clip_model(write(tmp_path / "deep.keras", deep))


def test_a_changed_bit_or_a_cut_file_is_refused(model_file, tmp_path):
    file, content = tmp_path / "m.keras", model_file.read_bytes()
    for place in (len(content) // 3, len(content) // 2):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"m\.keras"):
            load_clip_model(file)
    file.write_bytes(content[:-1000])
    with pytest.raises(RunError, match=r"not a complete \.keras file .*copy it again"):
        load_clip_model(file)


def to_other_file(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["data"] = np.zeros(group[name].shape, "float32")
    del group[name]
    group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/data")


def in_other_file(group, name, folder):
    shape = group[name].shape
    np.zeros(shape, "float32").tofile(folder / "other.bin")
    del group[name]
    size = 4 * int(np.prod(shape))
    group.create_dataset(name, shape, "float32", external=[(str(folder / "other.bin"), 0, size)])


def huge(group, name, folder):
    del group[name]
    group.create_dataset(name, (1 << 20, 1 << 16), "float32", chunks=(1024, 1024))


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("change", [to_other_file, in_other_file, huge])
def test_weights_that_lead_to_other_files_or_are_huge_are_refused(change, model_file, tmp_path):
    content = members(model_file)
    stream = io.BytesIO(content["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        found = []
        file.visititems(lambda path, item: found.append(path) if len(path) > 5 else None)
        name = next(path for path in found if path.endswith("vars/0"))
        change(file[name.rpartition("/")[0]], "0", tmp_path)
    file = write(tmp_path / "m.keras", {**content, "model.weights.h5": stream.getvalue()})
    with pytest.raises(RunError, match=r"(?s)cannot be loaded as a sound classifier.*Not allowed"):
        load_clip_model(file)


# Run folders.


@pytest.fixture
def made(model_file, tmp_path):
    """A finished run of a stranger, and the folder of its recordings."""
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / "1.wav").touch()
    (tmp_path / "secret.wav").touch()
    run = tmp_path / "run"
    run.mkdir()
    config = {"labels": ["a", "b"], "data": {"root": str(data)}, "options": {"backbone": "toy"}}
    run_folder.write_config(run, config)
    (run / "splits.csv").write_text("path,label,group,split\na/1.wav,a,g,test\n")
    shutil.copy(model_file, run / "model.keras")
    run_folder.write_scores(run, {"test": None, "thresholds": {"a": 0.25}})
    return run


def test_an_honest_run_is_loaded_wherever_it_is_linked_from(made, tmp_path):
    (tmp_path / "link").symlink_to(made)
    (made / "best.keras").symlink_to("model.keras")  # a link that stays inside
    for run in (made, tmp_path / "link"):
        found = unfreeze.SoundClassifier.load(run)
        assert found.thresholds.tolist() == [0.25, 0.5]
        assert [entry.path.name for entry in run_source(run).entries] == ["1.wav"]


READERS = {
    "load": load_classifier,
    "add to": lambda run: inherited_options(run, Path("x"), {}),
    "resume": lambda run: run_folder.claim(run, overwrite=False, resume=True),
    "overwrite": lambda run: run_folder.claim(run, overwrite=True),
    "recordings": run_source,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["model.keras", "metrics.json", "stages", ".lock"])
def test_links_that_lead_out_of_a_run_are_refused_by_all_that_read_it(name, reader, made, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    (made / name).unlink(missing_ok=True)
    (made / name).symlink_to(outside if name == "stages" else outside / "kept")
    with pytest.raises(RunError, match=f"{re.escape(name)} is a link that leads out"):
        READERS[reader](made)
    assert (outside / "kept").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "unfreeze_run: 1\nlabels: !!python/object/apply:os.system ['touch evil']\n",
        "unfreeze_run: 1\nlabels: !!python/name:os.system\n",
        "unfreeze_run: 1\na: &a [x, x]\nlabels: [*a, *a]\n",
        "unfreeze_run: 1\n---\nlabels: []\n",
        "unfreeze_run: 1\nlabels: " + "[" * 500 + "]" * 500 + "\n",
        "unfreeze_run: 1\nlabels: " + "x" * 2_000_000 + "\n",
        "unfreeze_run: 1\nlabels: \x00\n",
        "unfreeze_run: [1\n",
    ],
    ids=["object", "name", "alias", "documents", "deep", "long", "character", "cut"],
)
def test_a_config_may_hold_plain_values_only(text, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (made / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml cannot be read"):
        load_classifier(made)
    assert not (tmp_path / "evil").exists()


def test_every_config_that_is_written_can_be_read(tmp_path):
    """What is refused above must not be what we write ourselves."""
    shared = ["x", "on", "1e-3", "*a", "!b", "é", "a: b", "", "x" * 200]
    config = {"labels": shared, "again": shared, "none": None, "data": {"root": "/a b/#c"}}
    run_folder.write_config(tmp_path, config)
    assert run_folder.read_config(tmp_path) == {"unfreeze_run": 1, **config}


@pytest.mark.parametrize("path", ["../secret.wav", "a/../../secret.wav", "", "a/link.wav", "b/x"])
def test_recordings_outside_of_the_runs_data_are_refused(path, made, tmp_path):
    (tmp_path / "data" / "a" / "link.wav").symlink_to(tmp_path / "secret.wav")
    (tmp_path / "data" / "b").symlink_to(tmp_path)
    (made / "splits.csv").write_text(f"path,label,group,split\n{path},a,g,test\n")
    with pytest.raises(RunError, match=r"leads out of .*data"):
        run_source(made)


def test_absolute_paths_of_recordings_are_refused(made, tmp_path):
    secret = tmp_path / "secret.wav"
    (made / "splits.csv").write_text(f"path,label,group,split\n{secret},a,g,test\n")
    with pytest.raises(RunError, match="leads out of"):
        run_source(made)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": ', "\x80"])
def test_damaged_scores_are_named_with_the_cure(text, made):
    (made / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"metrics\.json cannot be read .*train again"):
        load_classifier(made)


@pytest.mark.parametrize("thresholds", [["a"], {"a": "x"}, {"a": [1]}, 3])
def test_scores_that_are_no_numbers_are_refused(thresholds, made):
    run_folder.write_scores(made, {"test": None, "thresholds": thresholds})
    with pytest.raises(RunError, match="are not numbers"):
        unfreeze.SoundClassifier.load(made).thresholds  # noqa: B018


def test_a_config_that_does_not_tell_is_refused(made):
    run_folder.write_config(made, {"labels": "a", "options": [1]})
    with pytest.raises(RunError, match="does not contain the run's options"):
        inherited_options(made, Path("x"), {})


def test_schedules_may_hold_plain_values_only(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("unfreeze_schedule: 1\nstages: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ScheduleError, match="tag"):
        read_schedule(file)


# The source.

PICKLES = r"(c?[pP]ickle|dill|joblib|shelve|marshal)\b"
FORBIDDEN = {
    # Imported or called; `pickletools`, which only lists what a file would do, is neither.
    "pickle": rf"(^\s*(import|from)\s.*\b|\b(?=\w+\.\w+\()){PICKLES}",
    "eval or exec": r"(?<![\w.])(eval|exec|__import__)\(",
    "yaml.load": r"yaml\.(load|load_all|unsafe_load|full_load)\(",
    "numpy.load with objects": r"np\.load\((?!.*allow_pickle=False)",
    "allow_pickle": r"allow_pickle=True",
    "torch.load": r"torch\.load\(",
    "unsafe Keras": r"safe_mode=False|enable_unsafe_deserialization",
    "a shell": r"shell=True|os\.(system|popen)\(",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_source_never_uses(what):
    found = {
        (file.relative_to(SOURCES).as_posix(), line.strip())
        for file in SOURCES.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(FORBIDDEN[what], line)
    }
    assert found == set()


def test_the_search_finds_what_it_looks_for():
    for line, what in {
        "import pickle": "pickle",
        "from os import path, marshal": "pickle",
        "    value = joblib.load(file)": "pickle",
        "x = eval(text)": "eval or exec",
        "yaml.load(text)": "yaml.load",
        "np.load(path)": "numpy.load with objects",
        "torch.load(path)": "torch.load",
        "load_model(path, safe_mode=False)": "unsafe Keras",
    }.items():
        assert re.search(FORBIDDEN[what], line)
    assert not re.search(FORBIDDEN["eval or exec"], "model.compile(optimizer)")
    assert not re.search(FORBIDDEN["pickle"], "import pickletools")


def is_loading(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load_model"


def test_every_model_is_loaded_after_our_check():
    """No call of Keras' loader without it."""
    callers = {
        file.relative_to(SOURCES).as_posix()
        for file in SOURCES.rglob("*.py")
        if any(map(is_loading, ast.walk(ast.parse(file.read_text("utf-8")))))
    }
    assert callers == {"pipeline/saved_model.py", "cli/plan.py", "backbones/keras_backbone.py"}
    for name in callers:
        assert "check_keras_file(path" in (SOURCES / name).read_text(encoding="utf-8")
