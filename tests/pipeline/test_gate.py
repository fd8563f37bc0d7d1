"""The gate, on toy sounds and on what it must leave alone."""

import re

import attrs
import keras
import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.clip_model import patch_model
from unfreeze.audio.entries import BACKGROUND
from unfreeze.audio.made_background import KINDS, RATE, make_background
from unfreeze.backbones.registry import BACKBONES, get_backbone
from unfreeze.pipeline import gate, held_counts, in_noise
from unfreeze.pipeline.training import TrainListener
from unfreeze.planning import complete_options

SETTINGS = {"backbone": "toy", "schedule": "probe", "seed": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run on high and low tones that glide, with a gate, and one without."""
    folder = tmp_path_factory.mktemp("gate")
    rng = np.random.default_rng(1)
    for label, (low, high) in {"rising": (300, 2000), "falling": (2000, 300)}.items():
        for number in range(24):
            ticks = np.arange(int(1.2 * toy.RATE)) / toy.RATE
            pitch = np.geomspace(low, high, len(ticks)) * rng.uniform(0.8, 1.25)
            sound = 0.3 * np.sin(6.283 * np.cumsum(pitch) / toy.RATE)
            file = folder / "data" / label / f"{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound + 0.01 * rng.normal(size=len(ticks)), toy.RATE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder, gate=True)
        toy.little_background(monkeypatch)
        unfreeze.SoundClassifier.train(folder / "data", out=folder / "gated", **SETTINGS)
        unfreeze.SoundClassifier.train(folder / "data", out=folder / "open", gate=False, **SETTINGS)
        yield folder


def test_the_classes_keep_their_order_and_share_what_background_leaves(home):
    gated, plain = (unfreeze.SoundClassifier.load(home / name) for name in ("gated", "open"))
    assert gated.labels == (BACKGROUND, "falling", "rising")
    assert plain.labels == ("falling", "rising")
    for file in sorted((home / "data").rglob("*.wav"))[::5]:
        blocks = [next(iter(one.scan(file))).scores for one in (gated, plain)]
        np.testing.assert_allclose(blocks[0].sum(axis=1), 1, atol=1e-5)
        shares = blocks[0][:, 1:] / blocks[0][:, 1:].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, blocks[1], atol=1e-4)


def test_background_is_heard_as_such_and_clips_are_not(home):
    gated = unfreeze.SoundClassifier.load(home / "gated")
    plain = unfreeze.SoundClassifier.load(home / "open")
    assert gated.knows_background
    assert not plain.knows_background
    rng = np.random.default_rng(99)
    kinds = ("coloured noise", "wind", "hum", "hiss")
    sounds = [make_background(kind, 3.0, rng).astype("float32") for kind in kinds for _ in range(4)]
    assert gated.sample_rate == RATE
    told = [gated.heard(gated.predict(sound)) for sound in sounds]
    assert sum(not names for names in told) >= 14
    assert all(plain.heard(plain.predict(sound)) for sound in sounds)
    assert gated.metrics["test"]["accuracy"] == plain.metrics["test"]["accuracy"]
    files = sorted((home / "data").rglob("*.wav"))
    assert sum(gated.heard(gated.predict(file)) == (file.parent.name,) for file in files) >= 45


def test_thresholds_are_counted_with_background(home):
    counted = unfreeze.SoundClassifier.load(home / "gated").metrics["threshold_counts"]
    # Six sounds of each kind that is used, 2.88 s each.
    sounds = counted["hours_of_background"] * 3600 / 2.88
    assert sounds == pytest.approx(round(sounds))
    assert 6 * 5 <= sounds <= 6 * 9
    assert counted["independent"] == pytest.approx(1 / 3)
    other = unfreeze.SoundClassifier.load(home / "open").metrics["threshold_counts"]
    assert (other["hours_of_background"], other["independent"]) == (0, 1)


def test_the_same_seed_gives_the_same_gate(home, tmp_path, monkeypatch):
    toy.register(monkeypatch, home, gate=True)
    toy.little_background(monkeypatch)
    again = unfreeze.SoundClassifier.train(home / "data", **SETTINGS)
    first = unfreeze.SoundClassifier.load(home / "gated")
    for a, b in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.metrics["thresholds"] == first.metrics["thresholds"]


def test_many_and_long_clips_cost_no_more(home, monkeypatch):
    """What the gate is solved on has a bound; so has what it is tried on."""
    toy.register(monkeypatch, home, gate=True)
    toy.little_background(monkeypatch)
    seen, scored = [], []
    monkeypatch.setattr(gate, "_CLIPS", 12)
    monkeypatch.setattr(gate, "_PATCHES", 10)
    make, score = gate.with_noise, held_counts.view_scores
    monkeypatch.setattr(gate, "with_noise", lambda cut, *how: seen.append(cut) or make(cut, *how))
    monkeypatch.setattr(
        held_counts,
        "view_scores",
        lambda model, view, n: scored.append(len(view)) or score(model, view, n),
    )
    found = unfreeze.SoundClassifier.train(home / "data", **SETTINGS)
    (cut,) = seen
    assert len(cut.parts["train"]) <= 10
    labels = {cut.manifest.clips[i].label for i in cut.parts["train"].clip}
    assert labels == {"rising", "falling"}
    assert found.labels == (BACKGROUND, "falling", "rising")
    # The test and the validation clips are scored once each, whatever is counted besides.
    assert len(scored) == 2


def test_classes_that_are_noise_have_no_gate_that_takes_them(tmp_path, monkeypatch):
    """Three classes of noise: the kinds that resemble them are left out, and nothing is lost."""
    rng = np.random.default_rng(4)
    for label, kind in {"sea": "coloured noise", "storm": "wind", "engine": "hum"}.items():
        for number in range(16):
            file = tmp_path / "data" / label / f"{number}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            sound = make_background(kind, 1.5, rng)
            soundfile.write(file, 0.5 * sound / np.abs(sound).max(), RATE)
    toy.register(monkeypatch, tmp_path, gate=True)
    toy.little_background(monkeypatch)
    notes = Notes()
    options = complete_options(tmp_path / "data", **SETTINGS)
    trained = unfreeze.SoundClassifier.from_options(options, notes)
    assert "sounds like your class" in " ".join(notes.texts)
    files = sorted((tmp_path / "data").rglob("*.wav"))
    named = sum(trained.heard(trained.predict(file)) == (file.parent.name,) for file in files)
    plain = unfreeze.SoundClassifier.from_options(attrs.evolve(options, gate=False))
    without = sum(plain.heard(plain.predict(file)) == (file.parent.name,) for file in files)
    assert named >= without - 2


def test_a_kind_that_is_heard_in_validation_clips_is_left_out(home, monkeypatch):
    """As if three of them were taken for hum; so hum goes, and the gate is solved without."""
    toy.register(monkeypatch, home, gate=True)
    toy.little_background(monkeypatch)
    measured, used = gate._taken, []

    def taken(gated, gate_model, quiet, view, cut):
        rows, clips = measured(gated, gate_model, quiet, view, cut)
        used.append(int(quiet.sum()))
        if len(used) > 1:
            return rows, clips
        hum = np.zeros((3, len(quiet)))
        hum[:, np.flatnonzero(quiet)[list(KINDS).index("hum")]] = 0.9
        return hum, clips

    monkeypatch.setattr(gate, "_taken", taken)
    monkeypatch.setattr(in_noise, "like_classes", lambda *given: {})
    notes = Notes()
    found = unfreeze.SoundClassifier.from_options(
        complete_options(home / "data", **SETTINGS), notes
    )
    assert used == [9, 8]
    said = [text for text in notes.texts if text.startswith("Computed")]
    assert len(said) == 1
    assert re.fullmatch(
        r"Computed hum was heard in validation clips \(3 of \d+ were taken for background\), so it "
        "is not used as background.",
        said[0],
    )
    assert found.labels == (BACKGROUND, "falling", "rising")
    # Nor are false alarms counted on it.
    seconds = found.metrics["threshold_counts"]["hours_of_background"] * 3600
    assert seconds == pytest.approx(8 * 6 * 2.88)


class Notes(TrainListener):
    def __init__(self):
        super().__init__()
        self.texts = []

    def on_note(self, text):
        self.texts.append(text)


def test_several_labels_fall_silent_in_background(tmp_path, monkeypatch):
    toy.write_mixed(tmp_path / "data", clips=60)
    toy.register(monkeypatch, tmp_path, gate=True)
    toy.little_background(monkeypatch)
    table = tmp_path / "data" / "manifest.csv"
    gated = unfreeze.SoundClassifier.train(table, **SETTINGS)
    plain = unfreeze.SoundClassifier.train(table, gate=False, **SETTINGS)
    assert gated.labels == plain.labels == ("high", "low", "noise")
    rng = np.random.default_rng(7)
    tones = [make_background("clicks", 3.0, rng).astype("float32") for _ in range(6)]
    before, after = (np.array([one.predict(t) for t in tones]) for one in (plain, gated))
    assert (after <= before + 1e-6).all()
    for name in ("mean_average_precision",):
        assert gated.metrics["test"][name] >= plain.metrics["test"][name] - 0.05


@pytest.mark.parametrize("network", ["toy", pytest.param("windows", marks=pytest.mark.slow)])
def test_a_network_that_was_trained_is_heard_beside_the_published_one(
    home, tmp_path, monkeypatch, network
):
    """The gate has frozen copies of the published lower blocks."""
    toy.register_windows(monkeypatch, tmp_path, gate=True)
    toy.little_background(monkeypatch)
    settings = {**SETTINGS, "backbone": network, "accept_licence": True, "epochs": 1}
    files = sorted((home / "data").rglob("*.wav"))[::6]
    frozen = unfreeze.SoundClassifier.train(home / "data", **settings)
    settings["schedule"] = "full"
    given = unfreeze.SoundClassifier.train(home / "data", out=tmp_path / "run", **settings)
    loaded = unfreeze.SoundClassifier.load(tmp_path / "run")
    patches, names = {}, {}
    for name, one in {"frozen": frozen, "trained": loaded}.items():
        patches[name] = one.model.get_layer("patch_classifier")
        names[name] = {layer.name for layer in patches[name].layers}
    copy = f"{gate.GATE}_block1_conv"
    assert copy not in names["frozen"]
    published = BACKBONES[network].build()
    copied = patches["trained"].get_layer(copy)
    assert not copied.trainable
    for mine, theirs in zip(
        copied.get_weights(), published.get_layer("block1_conv").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    moved = patches["trained"].get_layer("block1_conv").get_weights()[0]
    assert np.abs(moved - copied.get_weights()[0]).max() > 0
    assert f"{gate.GATE}_block2_conv" not in names["trained"]
    for file in files:
        np.testing.assert_allclose(loaded.predict(file), given.predict(file), atol=1e-6)
    rng = np.random.default_rng(5)
    noise = [make_background("hiss", 2.0, rng).astype("float32") for _ in range(6)]
    if network == "toy":
        assert sum(not loaded.heard(loaded.predict(sound)) for sound in noise) >= 4


@pytest.mark.parametrize(("name", "last"), [("yamnet", 6), ("birdnet", 8)])
def test_of_published_networks_the_lower_blocks_are_copied(name, last):
    backbone = get_backbone(name)
    published = backbone.build(weights=None)
    model = patch_model(published, 3, 0, "auto", front_end=backbone.front_end)
    lower = gate._lower_blocks(model, published)
    assert lower.shape == (None, 256)
    copied = [layer.name for layer in keras.Model(model.input, lower).layers]
    numbers = {int(n) for layer in copied for n in re.findall(r"block(\d+)", layer)}
    assert max(numbers) == last
