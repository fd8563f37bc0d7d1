"""A backbone of your own, described in a small YAML file: the card.

    name: perch                # for messages and reports; the file's name if not given
    model: perch.onnx          # .onnx, .tflite or .keras beside the card, or module:build
    sample_rate: 32000
    window: 5                  # seconds heard at once
    hop: 2.5                   # seconds to the next window; half a window if not given
    front_end: waveform        # or log-mel or mel-windows, and their settings
    embedding: embedding       # outputs of the network, or a layer of a Keras model

Reading a card needs neither Keras nor a runtime, but for a network in an ONNX or TFLite file:
that is opened, to see that it has what the card names. Whatever is wrong is refused with the
card's file and line.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unfreeze.backbones.frontend import (
    FrontEnd,
    Mel,
    MelWindows,
    NetworkOutputs,
    SampleWindows,
)
from unfreeze.backbones.licence import Licence
from unfreeze.backbones.network_file import (
    SUFFIXES,
    described_outputs,
    examine_network,
    file_digest,
)
from unfreeze.core import yaml_file as read
from unfreeze.errors import UnfreezeError, show

CARDS, KERAS = (".yaml", ".yml"), ".keras"
WAVEFORM, LOG_MEL, MEL_WINDOWS = KINDS = ("waveform", "log-mel", "mel-windows")

_KEYS = (
    *("name", "title", "description", "hears", "licence", "model", "sample_rate", "window"),
    *("hop", "front_end", "low_hz", "high_hz", "embedding", "taps"),
)
_LICENCE_KEYS = ("name", "url", "terms", "credit", "must_accept")
_SETTINGS = {
    WAVEFORM: ("kind",),
    LOG_MEL: ("kind", "frame", "step", "fft", "bands", "log_offset"),
    MEL_WINDOWS: ("kind", "bands", "mels"),
}
_MEL_KEYS = ("fft", "hop", "low_hz", "high_hz", "power")
_HIGHEST_RATE = 1_000_000
# The smallest hop is at most this part of a second.
_STEPS = 10


@dataclass(frozen=True)
class Card:
    """What a card says, checked.

    Attributes:
        file: the card.
        name: of the backbone.
        title: what people call it.
        description: one line for people.
        hears: what it was trained on, in a few words.
        model: as the card names it.
        source: the model's file; None for a function.
        sha256: of that file's bytes; empty for a function.
        front_end: how waveforms become the network's input; for a network in a file of its
            own, its outputs.
        embedding: the outputs that are read, or a layer; empty for the only output.
        taps: as `Backbone.taps`.
        licence: of the network; None if the card names none.
    """

    file: Path
    name: str
    title: str
    description: str
    hears: str
    model: str
    source: Path | None
    sha256: str
    front_end: FrontEnd
    embedding: tuple[str, ...]
    taps: str
    licence: Licence | None

    @property
    def is_frozen(self) -> bool:
        """Whether the network is a file of its own, which is run and never trained."""
        return isinstance(self.front_end, NetworkOutputs)

    def as_plain(self) -> dict[str, Any]:
        """What it says, for a run's settings; without where files lie."""
        return {
            "name": self.name,
            "model": self.model,
            "sha256": self.sha256,
            "front_end": self.front_end.identity,
            "embedding": list(self.embedding),
            "taps": self.taps,
        }


def names_a_card(name: str) -> bool:
    """Whether the name of a backbone is that of a card, or of a model that has one beside it."""
    path = Path(name)
    return path.suffix.lower() in (*CARDS, *SUFFIXES, KERAS) or "/" in name or ":" in name


def card_place(name: str) -> Path:
    """The card that a user means, by its own name or by that of the model beside it.

    Raises:
        UnfreezeError: there is none; for a model, shows the lines to write.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in CARDS:
        if not path.is_file():
            raise UnfreezeError(f"There is no file {show(path)}: correct the path of the card")
        return path
    if path.suffix.lower() not in (*SUFFIXES, KERAS):
        what = "a function" if ":" in name else "neither a card nor a model"
        raise UnfreezeError(
            f"{show(name)} is {what}: give a YAML file that describes the network.\n"
            f"{_example('my_networks:build', 'the network')}"
        )
    if not path.is_file():
        raise UnfreezeError(f"There is no file {show(path)}: correct the path of the model")
    beside = [path.with_suffix(suffix) for suffix in CARDS]
    found = next((card for card in beside if card.is_file()), None)
    if found is None:
        outputs = described_outputs(path) if path.suffix.lower() in SUFFIXES else ""
        raise UnfreezeError(
            f"{show(path)} does not say what it hears: write {show(beside[0])} beside it.\n"
            f"{_example(path.name, show(path), outputs)}"
        )
    return found


def _example(model: str, what: str, outputs: str = "") -> str:
    """Lines of a card to start from."""
    frozen = model.endswith(SUFFIXES)
    lines = [
        f"model: {model}",
        "sample_rate: 32000    # samples per second that it hears",
        "window: 5             # seconds that it hears at once",
        f"front_end: {'waveform' if frozen else 'log-mel    # or waveform'}",
    ]
    if frozen:
        lines.append("embedding: NAME       # the output to read, or several in a list")
    told = f"\nThe outputs of {what} are {outputs}." if outputs else ""
    return "Such as:\n" + "\n".join(f"  {line}" for line in lines) + told


def read_card(file: Path) -> Card:
    """Read a card, and check it against its model's file.

    Args:
        file: YAML.

    Raises:
        UnfreezeError: the card cannot be read or used, or does not fit the model; names the
            line.
        WeightsError: the model's file is missing, or its runtime; or it is another network.
    """
    top = read.compose(read.read_text(file), str(file))
    given = read.pairs(top, "the card", _KEYS)
    for key in ("model", "sample_rate", "window"):
        if key not in given:
            raise read.error_at(top, f"the card has no `{key}`: add it.{_what(key)}")
    name = _name(given, file)
    model = _text(given, "model")
    source = _source(given["model"][1], model, file)
    frozen = source is not None and source.suffix.lower() in SUFFIXES
    if frozen and "taps" in given:
        raise read.error_at(
            given["taps"][0],
            "taps are layers of a Keras model: of this network, name outputs in `embedding`",
        )
    front_end = _front_end(given, top, frozen)
    embedding = _embedding(given, frozen)
    taps = _text(given, "taps", "auto")
    if frozen:
        assert source is not None
        network = examine_network(source, name, embedding, front_end.window)
        kept = {key: getattr(front_end, key) for key in SampleWindows.__dataclass_fields__}
        front_end, embedding = NetworkOutputs(**kept, network=network), network.outputs
        taps = ",".join(output_layers(embedding))
    title = _text(given, "title", name)
    return Card(
        file=file,
        name=name,
        title=title,
        description=_text(given, "description", f"{title}, from {file.name}."),
        hears=_text(given, "hears", "what its card does not say"),
        model=model,
        source=source,
        sha256="" if source is None else file_digest(source),
        front_end=front_end,
        embedding=embedding,
        taps=taps,
        licence=_licence(given, title),
    )


def output_layers(outputs: Sequence[str]) -> list[str]:
    """Names of the layers that hand the outputs of a frozen network on: those of the outputs.

    Other letters than Keras takes are replaced.
    """
    names: list[str] = []
    for output in outputs:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", output)
        name = name if re.match(r"[A-Za-z0-9]", name) else f"output{name}"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _what(key: str) -> str:
    return {
        "model": " It is a file beside the card (.onnx, .tflite, .keras), or module:build.",
        "sample_rate": " It is the samples per second that the network hears, such as 32000.",
        "window": " It is the seconds that the network hears at once, such as 5.",
    }[key]


def _text(given: read.Pairs, key: str, default: str = "") -> str:
    return read.text(given[key][1], key) if key in given else default


def _name(given: read.Pairs, file: Path) -> str:
    if "name" not in given:
        return re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_") or "network"
    name = _text(given, "name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise read.error_at(
            given["name"][1],
            f"name {name!r} must be small letters, digits and _, and begin with a letter",
        )
    return name


def _source(node: yaml.Node, model: str, file: Path) -> Path | None:
    """The model's file; None where it is a function instead."""
    suffix = Path(model).suffix.lower()
    if suffix not in (*SUFFIXES, KERAS):
        if re.fullmatch(r"[\w.]+:\w+", model):
            return None
        raise read.error_at(
            node,
            f"model {model!r} must be a file (.onnx, .tflite, .keras), or a function of yours, "
            "module:build",
        )
    source = (file.parent / Path(model).expanduser()).absolute()
    if not source.is_file():
        raise read.error_at(
            node, f"there is no file {show(source)}: put it there, or correct `model`"
        )
    return source


def _embedding(given: read.Pairs, frozen: bool) -> tuple[str, ...]:
    if "embedding" not in given:
        return ()
    node = given["embedding"][1]
    several = isinstance(node, yaml.SequenceNode)
    parts = read.items(node, "embedding") if several else [node]
    names = tuple(read.text(part, "embedding") for part in parts)
    if not names or len(set(names)) != len(names):
        raise read.error_at(node, "embedding must name each output once, and one at least")
    if not frozen and len(names) > 1:
        raise read.error_at(
            node, "embedding must be one layer of a Keras model; name more to read in `taps`"
        )
    return names


def _licence(given: read.Pairs, title: str) -> Licence | None:
    if "licence" not in given:
        return None
    node = given["licence"][1]
    if not isinstance(node, yaml.MappingNode):
        return Licence(read.text(node, "licence"), "", title)
    parts = read.pairs(node, "licence", _LICENCE_KEYS)
    if "name" not in parts:
        raise read.error_at(node, "licence has no `name`: add it, such as CC BY-NC-SA 4.0")
    terms = parts.get("terms")
    listed = () if terms is None else read.items(terms[1], "terms")
    must = parts.get("must_accept")
    return Licence(
        name=_text(parts, "name"),
        url=_text(parts, "url"),
        of=title,
        terms=tuple(read.text(term, "terms") for term in listed),
        credit=_text(parts, "credit"),
        must_accept=must is not None and read.boolean(must[1], "must_accept"),
    )


def _front_end(given: read.Pairs, top: yaml.Node, frozen: bool) -> FrontEnd:
    kind, settings, node = WAVEFORM, read.Pairs(), top
    if "front_end" in given:
        node = given["front_end"][1]
        if isinstance(node, yaml.MappingNode):
            settings = read.pairs(node, "front_end")
            if "kind" not in settings:
                raise read.error_at(node, f"front_end has no `kind`: one of {', '.join(KINDS)}")
            kind = _text(settings, "kind")
        else:
            kind = read.text(node, "front_end")
    if kind not in KINDS:
        raise read.error_at(node, f"front_end {kind!r} is not known{read.closest(kind, KINDS)}")
    if settings:
        settings = read.pairs(node, f"front_end {kind}", _SETTINGS[kind])
    if frozen and kind != WAVEFORM:
        raise read.error_at(node, "networks in ONNX or TFLite files take a waveform: front_end")
    return _checked(given, kind, settings, node)


def _checked(given: read.Pairs, kind: str, settings: read.Pairs, node: yaml.Node) -> FrontEnd:
    rate = read.whole(given["sample_rate"][1], "sample_rate")
    if not 1_000 <= rate <= _HIGHEST_RATE:
        raise read.error_at(
            given["sample_rate"][1], f"sample_rate must be from 1000 to {_HIGHEST_RATE}, not {rate}"
        )
    window = _samples(given, "window", rate)
    hop = _samples(given, "hop", rate) if "hop" in given else _half(window)
    if window % hop:
        raise read.error_at(
            given["hop"][1],
            f"the window ({window} samples) must be a whole number of hops ({hop} samples): a "
            f"half, a third or a quarter of it, such as {window / 2 / rate:g}",
        )
    low, high = _range(given, kind, rate)
    common: dict[str, Any] = {
        "sample_rate": rate, "low_hz": low, "high_hz": high, "patch_hop": 1, "patch_frames": 1,
    }  # fmt: skip
    if kind == LOG_MEL:
        return _log_mel(settings, node, common, window, hop, rate)
    whole = {
        **common, "window": window, "hop": hop, "fft": 0, "bands": 0, "log_offset": 0.0,
        "min_samples": window, "smallest_hop": math.gcd(window, hop, max(rate // _STEPS, 1)),
    }  # fmt: skip
    return SampleWindows(**whole) if kind == WAVEFORM else _mel_windows(settings, node, whole)


def _samples(given: read.Pairs, key: str, rate: int) -> int:
    """Seconds, as a whole number of samples."""
    node = given[key][1]
    seconds = read.number(node, key)
    samples = round(seconds * rate)
    if samples < 1 or abs(seconds * rate - samples) > 1e-3 * max(1, samples / rate):
        raise read.error_at(
            node,
            f"{key} {seconds:g} s is no whole number of samples at {rate} Hz: the nearest is "
            f"{max(samples, 1)} / {rate} = {max(samples, 1) / rate:.9g}",
        )
    return samples


def _half(window: int) -> int:
    return window // 2 if window % 2 == 0 else window


def _range(given: read.Pairs, kind: str, rate: int) -> tuple[float, float]:
    low = read.number(given["low_hz"][1], "low_hz") if "low_hz" in given else 0.0
    high = read.number(given["high_hz"][1], "high_hz") if "high_hz" in given else rate / 2
    if not 0 <= low < high <= rate / 2:
        key = "high_hz" if "high_hz" in given else "low_hz"
        raise read.error_at(
            given[key][1],
            f"low_hz ({low:g}) and high_hz ({high:g}) must rise, from 0 to half of sample_rate",
        )
    return float(low), float(high)


def _log_mel(
    settings: read.Pairs,
    node: yaml.Node,
    common: dict[str, Any],
    window: int,
    hop: int,
    rate: int,
) -> FrontEnd:
    """Settings in seconds; as YAMNet's where they are not given."""

    def seconds(key: str, default: float) -> int:
        return _samples(settings, key, rate) if key in settings else round(default * rate)

    def number(key: str, default: float) -> float:
        return read.number(settings[key][1], key) if key in settings else default

    def whole(key: str, default: int) -> int:
        return read.whole(settings[key][1], key) if key in settings else default

    frame, step = seconds("frame", 0.025), seconds("step", 0.01)
    if window % step or hop % step:
        raise read.error_at(
            node,
            f"window and hop must be whole numbers of the frames' step: {window} and {hop} samples "
            f"are not of {step}",
        )
    fft, bands = whole("fft", 2 ** (frame - 1).bit_length()), whole("bands", 64)
    offset = number("log_offset", 0.001)
    if not (fft >= frame and 2 <= bands <= fft // 2 and offset > 0):
        raise read.error_at(
            node,
            f"fft ({fft}) must be at least a frame ({frame} samples), bands ({bands}) from 2 to "
            f"half of fft, and log_offset ({offset:g}) above 0",
        )
    frames = window // step
    return FrontEnd(
        **{
            **common,
            "window": frame,
            "hop": step,
            "fft": fft,
            "bands": bands,
            "log_offset": offset,
            "patch_frames": frames,
            "patch_hop": hop // step,
            "min_samples": (frames - 1) * step + frame,
        }
    )


def _mel_windows(settings: read.Pairs, node: yaml.Node, whole: dict[str, Any]) -> FrontEnd:
    if "mels" not in settings or "bands" not in settings:
        raise read.error_at(node, f"front_end {MEL_WINDOWS} needs `bands` and `mels`")
    mels = []
    for part in read.items(settings["mels"][1], "mels"):
        given = read.pairs(part, "mels", _MEL_KEYS)
        missing = [key for key in _MEL_KEYS if key not in given]
        if missing:
            raise read.error_at(part, f"a mel spectrogram has no `{missing[0]}`: add it")
        fft, hop = (read.whole(given[key][1], key) for key in _MEL_KEYS[:2])
        low, high, power = (read.number(given[key][1], key) for key in _MEL_KEYS[2:])
        if not (0 <= low < high <= whole["sample_rate"] / 2 and power > 0 and hop > 0):
            raise read.error_at(
                part,
                "low_hz and high_hz of a mel spectrogram must rise, from 0 to half of sample_rate, "
                "and its hop and power be above 0",
            )
        mels.append(Mel(fft, hop, low, high, power))
    bands = read.whole(settings["bands"][1], "bands")
    found = MelWindows(**{**whole, "bands": bands, "mels": tuple(mels)})
    sizes_of = [(whole["window"] - mel.fft) // mel.hop + 1 for mel in mels if mel.hop > 0]
    if not mels or len(sizes_of) != len(mels) or min(sizes_of) < 1 or len(set(sizes_of)) > 1:
        raise read.error_at(
            node,
            "mels must be spectrograms of one length, (window - fft) / hop + 1 columns: these have "
            f"{', '.join(map(str, sizes_of)) or 'none'}",
        )
    return replace(found, smallest_hop=math.gcd(found.smallest_hop, *(mel.hop for mel in mels)))
