"""Cards: what they say, and what in them is refused with its line."""

from pathlib import Path

import pytest

import networks
from unfreeze.backbones.backbone_card import (
    Card,
    card_place,
    names_a_card,
    output_layers,
    read_card,
)
from unfreeze.backbones.frontend import FrontEnd, MelWindows, NetworkOutputs, SampleWindows
from unfreeze.backbones.registry import full_name, get_backbone
from unfreeze.errors import UnfreezeError, WeightsError

LINES = "model: my_networks:build\nsample_rate: 16000\nwindow: 0.96\n"


def card(folder: Path, text: str, name: str = "mine.yaml") -> Card:
    (folder / name).write_text(text)
    return read_card(folder / name)


def test_a_log_mel_front_end_is_yamnets_where_the_card_does_not_say_otherwise(tmp_path):
    text = LINES + "front_end: log-mel\nlow_hz: 125\nhigh_hz: 7500\n"
    found = card(tmp_path, text).front_end
    assert type(found) is FrontEnd
    # YAMNet pads short clips to 15,600 samples: its last frame begins within them.
    assert found == FrontEnd(min_samples=15_600)
    more = "front_end:\n  kind: log-mel\n  frame: 0.02\n  step: 0.02\n  bands: 40\n  fft: 1024\n"
    other = card(tmp_path, LINES + "hop: 0.24\n" + more).front_end
    assert (other.window, other.hop, other.fft, other.bands) == (320, 320, 1024, 40)
    assert (other.patch_frames, other.patch_hop, other.high_hz) == (48, 12, 8_000)
    assert other.patch_seconds == 0.96


def test_a_waveform_is_the_usual_front_end(tmp_path):
    found = card(tmp_path, LINES).front_end
    assert type(found) is SampleWindows
    assert (found.patch_shape, found.hop, found.patch_seconds) == ((15_360,), 7_680, 0.96)
    assert (found.patch_hop, found.patch_frames, found.min_samples) == (1, 1, 15_360)
    assert 0 < found.step / found.sample_rate <= 0.1
    assert found.steps * found.step == found.hop


def test_mel_windows(tmp_path):
    text = LINES.replace("0.96", "0.5") + (
        "front_end:\n  kind: mel-windows\n  bands: 24\n  mels:\n"
        "    - {fft: 512, hop: 160, low_hz: 0, high_hz: 1000, power: 0.23}\n"
        "    - {fft: 512, hop: 160, low_hz: 300, high_hz: 5000, power: 0.19}\n"
    )
    found = card(tmp_path, text).front_end
    assert isinstance(found, MelWindows)
    assert found.patch_shape == (47, 24, 2)
    assert found.powers == (0.23, 0.19)
    with pytest.raises(UnfreezeError, match="of a mel spectrogram must rise"):
        card(tmp_path, text.replace("low_hz: 300", "low_hz: 6000"))
    broken = text.replace("hop: 160, low_hz: 300", "hop: 80, low_hz: 300")
    with pytest.raises(UnfreezeError, match="spectrograms of one length"):
        card(tmp_path, broken)


def test_all_that_a_card_may_say(tmp_path):
    text = LINES + (
        "name: forest\ntitle: Forest net\ndescription: One line.\nhears: trees\n"
        "front_end: log-mel\nembedding: vector\ntaps: block1_relu,block2_relu\n"
        "licence:\n  name: CC BY 4.0\n  url: https://example.org\n  terms: [name them]\n"
        "  credit: Somebody\n  must_accept: true\n"
    )
    found = card(tmp_path, text)
    assert (found.name, found.title, found.hears) == ("forest", "Forest net", "trees")
    assert (found.embedding, found.taps) == (("vector",), "block1_relu,block2_relu")
    licence = found.licence
    assert licence is not None
    assert licence.must_accept
    assert licence.terms == ("name them",)
    record = get_backbone(str(tmp_path / "mine.yaml"), slow_down=2, channel=1)
    assert record.name == "forest"
    assert record.front_end.sample_rate == 32_000
    assert record.front_end.channel == 1
    assert record.taps == "block1_relu,block2_relu"
    assert "under the same licence, CC BY 4.0" in record.notice
    plain = found.as_plain()
    assert plain["model"] == "my_networks:build"
    assert str(tmp_path) not in str(plain)


def test_a_frozen_network_is_examined(tmp_path):
    pytest.importorskip("onnx")
    networks.write_onnx(tmp_path / "Small net.onnx")
    networks.write_card(tmp_path / "Small net.onnx", embedding="[scores, embedding]")
    record = get_backbone(str(tmp_path / "Small net.onnx"))
    front = record.front_end
    assert isinstance(front, NetworkOutputs)
    assert record.is_frozen
    assert record.name == "small_net"
    assert record.embedding_size == 5 + networks.BANDS
    assert record.taps == "scores,embedding"
    assert record.weights.sha256 == front.network.sha256
    assert record.weights.file == tmp_path / "Small net.onnx"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("sample_rate: 16000\nwindow: 1\n", "mine.yaml:1: the card has no `model`"),
        ("model: a:b\nwindow: 1\n", r"no `sample_rate`: add it. .* such as 32000"),
        ("model: a:b\nsample_rate: 16000\n", r"no `window`: add it. .* hears at once"),
        (LINES + "wimdow: 3\n", r"mine.yaml:4: the card: unknown key 'wimdow'. Did you .*'window'"),
        (LINES.replace("my_networks:build", "net.pb"), r"mine.yaml:1: model 'net.pb' must be a fi"),
        (LINES.replace("my_networks:build", "net.onnx"), "mine.yaml:1: there is no file .*net.onn"),
        (LINES.replace("16000", "16"), "mine.yaml:2: sample_rate must be from 1000"),
        (LINES.replace("16000", "fast"), "mine.yaml:2: sample_rate must be a whole number"),
        (LINES.replace("0.96", "0.33333"), r"no whole number .* 5333 / 16000 = 0.3333125"),
        (LINES.replace("0.96", "0"), "mine.yaml:3: window 0 s is no whole number"),
        (LINES + "hop: 0.5\n", "mine.yaml:4: the window .* a whole number of hops .* such as 0.48"),
        (LINES + "high_hz: 9000\n", "mine.yaml:4: low_hz .* must rise, from 0 to half"),
        (LINES + "front_end: logmel\n", r"front_end 'logmel' is not known. Did you mean 'log-mel'"),
        (LINES + "front_end:\n  bands: 64\n", "front_end has no `kind`"),
        (LINES + "front_end:\n  kind: log-mel\n  band: 3\n", r"unknown key 'band'.*'bands'"),
        (LINES + "front_end:\n  kind: log-mel\n  fft: 256\n", r"fft \(256\) must be at least a fr"),
        (LINES + "front_end:\n  kind: log-mel\n  step: 0.025\n", "whole numbers of the frames' st"),
        (LINES + "front_end:\n  kind: mel-windows\n", "needs `bands` and `mels`"),
        (LINES + "name: My net\n", "mine.yaml:4: name 'My net' must be small letters"),
        (LINES + "embedding: []\n", "must name each output once"),
        (LINES + "embedding: [a, b]\n", "must be one layer of a Keras model"),
        (LINES + "licence:\n  url: x\n", "licence has no `name`"),
        ("", "the file is empty"),
        ("model: !!python/name:os.system\n", "tag"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(lines, told, tmp_path):
    with pytest.raises(UnfreezeError, match=told):
        card(tmp_path, lines)


def test_what_does_not_go_with_a_frozen_network(tmp_path):
    pytest.importorskip("onnx")
    file = networks.write_onnx(tmp_path / "net.onnx", outputs=("scores",))
    for more, told in (
        ({"front_end": "log-mel"}, "networks in ONNX or TFLite files take a waveform"),
        ({"taps": "scores"}, "of this network, name outputs in `embedding`"),
    ):
        with pytest.raises(UnfreezeError, match=told):
            read_card(networks.write_card(file, **more))
    with pytest.raises(WeightsError, match="takes 8000 samples at once"):
        read_card(networks.write_card(file, sample_rate=48_000))
    with pytest.raises(UnfreezeError, match="yamnet is the name of a network that comes with"):
        get_backbone(str(networks.write_card(file, name="yamnet")))


def test_a_model_without_a_card_shows_the_lines_to_write(tmp_path):
    pytest.importorskip("onnx")
    file = networks.write_onnx(tmp_path / "net.onnx")
    with pytest.raises(UnfreezeError, match=r"net.onnx does not say what it hears") as caught:
        card_place(str(file))
    text = str(caught.value)
    assert f"write {tmp_path}/net.yaml beside it" in text
    assert "  model: net.onnx\n  sample_rate: 32000" in text
    assert text.endswith("are embedding (any x 24), scores (any x 5).")
    for name, told in (
        ("my_networks:build", "is a function: give a YAML file"),
        (str(tmp_path / "none.keras"), "There is no file"),
        (str(tmp_path / "none.yaml"), "There is no file"),
        (str(tmp_path), "is neither a card nor a model"),
    ):
        with pytest.raises(UnfreezeError, match=told):
            card_place(name)
    (tmp_path / "net.yml").write_text("x: 1\n")
    assert card_place(str(file)) == tmp_path / "net.yml"


def test_names_of_cards():
    assert names_a_card("perch.onnx")
    assert names_a_card("./perch")
    assert not names_a_card("birdnet")
    assert full_name("yamnet") == "yamnet"
    assert full_name("perch.yaml") == str(Path.cwd() / "perch.yaml")


def test_names_of_outputs_become_names_of_layers():
    given = ["model/AVG/Mean", "Identity:0", "model_AVG/Mean", "_x"]
    assert output_layers(given) == ["model_AVG_Mean", "Identity_0", "model_AVG_Mean_2", "output_x"]
