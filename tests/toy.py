"""A small backbone and a small sound set, so that the whole road is tested in seconds."""

from dataclasses import replace
from functools import partial

import numpy as np
import soundfile

from unfreeze.backbones.frontend import FrontEnd, Mel, MelWindows
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.registry import BACKBONES, Backbone
from unfreeze.backbones.weight_files import WeightsSpec, tensor_digest, write_safetensors

RATE = 16_000
# A backbone has a file of weights. That of the toy is looked up, verified and not used:
# its layers are drawn by numpy, and so are the same on every backend.
_TENSORS = {"toy/none": np.zeros(1, np.float32)}
_WEIGHTS = WeightsSpec("toy", {"toy/none": (1,)}, tensor_digest(_TENSORS), sources=())


def build_toy(weights=None, progress=None):
    """Two convolutions with BatchNorm and a mean, on patches of 96 x 64."""
    import keras

    layers, rng = keras.layers, np.random.default_rng(1)
    x = patches = keras.Input((96, 64), name="patches")
    x = layers.Reshape((96, 64, 1), name="image")(x)
    x = layers.Rescaling(0.4, 1.6, name="scale")(x)  # log-mel is about -7 to 1
    for number, filters in ((1, 8), (2, 16)):
        x = layers.Conv2D(filters, 5, 4, "same", name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    # The mean over time alone: pitch is what tells the toy sounds apart.
    x = layers.AveragePooling2D((6, 1), name="over_time")(x)
    x = layers.Flatten(name="embedding")(x)
    model = keras.Model(patches, x, name="toy")
    for number in (1, 2):
        conv = model.get_layer(f"block{number}_conv")
        limit = np.sqrt(6 / (25 * sum(conv.kernel.shape[2:])))  # Glorot's
        conv.kernel.assign(rng.uniform(-limit, limit, conv.kernel.shape))
    return model


def register(monkeypatch, folder, pictures=False, gate=False, report=False, light=False):
    """Make `toy` a backbone, with its file of weights and all caches in `folder`.

    Runs draw no pictures, have no gate and write no report and no light form unless asked to:
    those take longer than toy trainings.
    """
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
    weights = folder / "toy.safetensors"
    write_safetensors(weights, _TENSORS, {})
    monkeypatch.setenv(_WEIGHTS.env, str(weights))
    toy = Backbone("toy", "Toy", "for tests", "tones", FrontEnd(), 64, _WEIGHTS, build_toy)
    monkeypatch.setitem(BACKBONES, "toy", toy)
    # The same to the bit, as the tests of core show, and traced in half the time.
    monkeypatch.setattr("unfreeze.core.stage_fit._STEPS", 1)
    if not gate:
        for module in ("pipeline.training", "compare.detector_scores", "search.head_from_index"):
            monkeypatch.setattr(f"unfreeze.{module}.with_gate", without_gate)
    if not pictures:
        monkeypatch.setattr("unfreeze.planning._draw", lambda *run: None)
    if not report:
        monkeypatch.setattr("unfreeze.planning._report", lambda *run: None)
    if not light:
        monkeypatch.setattr("unfreeze.planning._light", lambda *run: "")


def little_background(monkeypatch, trained=8, held=2, more=(4, 3)):
    """Less computed background for gates, so that they take a second."""
    for name, value in {"_TRAINED": trained, "_HELD": held, "_MORE": more}.items():
        monkeypatch.setattr(f"unfreeze.pipeline.in_noise.{name}", value)


def without_gate(model, published, cut, front_end, seed):
    """The model as it is."""
    from unfreeze.pipeline.gate import Gated

    return Gated(model, cut.manifest.labels, None, ())


#: As BirdNET's, but 0.5 s at 12 kHz, every 0.25 s.
WINDOWS = MelWindows(
    sample_rate=12_000,
    window=6_000,
    hop=3_000,
    fft=0,
    bands=24,
    low_hz=0.0,
    high_hz=5_000.0,
    log_offset=0.0,
    patch_frames=1,
    patch_hop=1,
    min_samples=6_000,
    mels=(Mel(512, 120, 0.0, 1_000.0, 0.23), Mel(256, 124, 300.0, 5_000.0, 0.19)),
    smallest_hop=120,
)
TERMS = Licence("Toy licence", "https://example.org", "the toy", ("play",), "toys", True)
OWN = ("up", "down", "left", "right")


def build_windows(weights=None, progress=None, own=False):
    """A convolution and a mean over time, on mel windows; with `own` classes on top."""
    import keras

    layers, seed = keras.layers, keras.initializers.GlorotUniform
    x = patches = keras.Input(WINDOWS.patch_shape, name="patches")
    for number in (1, 2):
        x = layers.Conv2D(
            8, 3, 2, "same", kernel_initializer=seed(seed=number), name=f"block{number}_conv"
        )(x)
        x = layers.ReLU(name=f"block{number}_relu")(x)
    x = layers.AveragePooling2D((x.shape[1], 1), name="over_time")(x)
    x = layers.Flatten(name="embedding")(x)
    if own:
        start = seed(seed=3)
        x = layers.Dense(len(OWN), "sigmoid", kernel_initializer=start, name="scores")(x)
    return keras.Model(patches, x, name="windows")


def register_windows(monkeypatch, folder, gate=False):
    """As `register`, for `windows`: mel windows, a licence to accept, and classes of its own."""
    register(monkeypatch, folder, gate=gate)
    spec = replace(_WEIGHTS, name="windows", licence=TERMS)
    monkeypatch.setenv(spec.env, str(folder / "toy.safetensors"))
    windows = Backbone(
        *("windows", "Windows", "for tests", "tones", WINDOWS, 48, spec, build_windows),
        build_published=partial(build_windows, own=True),
        published_classes=lambda: OWN,
        published_title="Toy",
        published_key="own",
    )
    monkeypatch.setitem(BACKBONES, "windows", windows)


def write_sounds(folder, clips=8, classes=("high", "low", "noise"), seed=0):
    """A folder a class: high tones, low tones, noise; each clip of its own pitch and length."""
    rng = np.random.default_rng(seed)
    for label in classes:
        for number in range(clips):
            time = np.arange(int(RATE * rng.uniform(0.5, 1.6))) / RATE
            pitch = {"high": rng.uniform(2000, 4000), "low": rng.uniform(150, 400)}.get(label)
            clean = rng.normal(size=len(time)) if pitch is None else np.sin(6.283 * pitch * time)
            sound = 0.3 * clean + 0.01 * rng.normal(size=len(time))
            (folder / label).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / label / f"{label}_{number}.wav", sound, RATE)
    return folder


def write_annotated(folder, seconds=120, seed=0, name="site"):
    """One recording of faint noise with high and low tones in it, and Raven's table of them."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(0, 0.003, seconds * RATE)
    rows, at, number = [], 2.0, 0
    while at < seconds - 4:
        label = ("high", "low")[number % 2]
        length = rng.uniform(0.4, 2.0)
        pitch = rng.uniform(2000, 4000) if label == "high" else rng.uniform(150, 400)
        ticks = np.arange(round(length * RATE)) / RATE
        first = round(at * RATE)
        wave[first : first + len(ticks)] += 0.3 * np.sin(2 * np.pi * pitch * ticks)
        rows.append((at, at + length, label))
        at, number = at + length + rng.uniform(0.8, 1.8), number + 1
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", wave.astype("float32"), RATE)
    names = (
        "Selection,View,Channel,Begin Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Species"
    )
    head = names.replace(",", "\t") + "\n"
    (folder / f"{name}.Table.1.selections.txt").write_text(
        head
        + "".join(
            f"{n}\tSpectrogram 1\t1\t{a:.6f}\t{b:.6f}\t100\t5000\t{label}\n"
            for n, (a, b, label) in enumerate(rows, start=1)
        )
    )
    return rows


def write_mixed(folder, clips=60, seed=0):
    """Clips of a second with none, one or several of: a high tone, a low tone, noise."""
    rng = np.random.default_rng(seed)
    ticks = np.arange(RATE) / RATE
    rows = ["path,label"]
    folder.mkdir(parents=True)
    for number in range(clips):
        sounds = {
            "high": np.sin(6.283 * rng.uniform(2000, 4000) * ticks),
            "low": np.sin(6.283 * rng.uniform(150, 400) * ticks),
            "noise": 0.5 * rng.normal(size=RATE),
        }
        heard = [name for name in sounds if rng.random() < 0.45]
        wave = sum((0.2 * sounds[name] for name in heard), 0.002 * rng.normal(size=RATE))
        soundfile.write(folder / f"{number}.wav", wave, RATE)
        rows.append(f"{number}.wav,{';'.join(heard)}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder
