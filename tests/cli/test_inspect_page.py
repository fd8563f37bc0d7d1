"""`unfreeze inspect --html`: a page of clips to look at and to listen to."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

import toy
from html_reader import Reader, content
from unfreeze.errors import UnfreezeError

TOY = ("--backbone", "toy", "--validation", "0.3")


@pytest.fixture(scope="module")
def page(tmp_path_factory, inspected):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.register(monkeypatch, folder)
        data = toy.write_sounds(folder / "my <data>", clips=10)
        shutil.copy(data / "high" / "high_0.wav", data / "noise" / "both.wav")
        shutil.copy(data / "high" / "high_0.wav", data / "high" / "both.wav")
        waveform, rate = soundfile.read(data / "low" / "low_1.wav")
        soundfile.write(data / "low" / "again.flac", waveform, rate)
        soundfile.write(data / "noise" / "loud.wav", np.clip(waveform * 40, -1, 1), rate)
        tone = np.sin(np.arange(20_000) * 1.1)
        soundfile.write(data / "noise" / "wrong.wav", tone / 3, toy.RATE)
        (data / "low" / "<b>&'\".wav").write_bytes((data / "low" / "low_2.wav").read_bytes())
        report = json.loads(
            inspected(data, *TOY, "--max-bad", "0.2", "--html", folder / "page.html", "--json")
        )
        reader = Reader()
        reader.feed((folder / "page.html").read_text("utf-8"))
        yield folder, report, reader


def test_what_stands_out_is_in_the_report(page):
    _, report, _ = page
    odd = report["odd"]
    assert odd["looked_at"] == report["clips"] == 33
    assert ["low/again.flac", "low/low_1.wav"] in odd["copies"]
    assert odd["clipped"][0] == "noise/loud.wav"
    assert ("noise/wrong.wav", "high") in [(d["clip"], d["suggested"]) for d in odd["doubts"]]
    assert len(odd["outliers"]) == 3
    assert odd["notes"] == []


def test_the_page_shows_and_plays_each_clip_and_needs_nothing_else(page):
    _, _, reader = page
    pictures, sounds = reader.of("img"), reader.of("audio")
    assert len(pictures) == len(sounds) >= 3 + 2 + 1 + 3 + 18
    assert reader.of("script") == reader.of("link") == []
    for picture, sound in zip(pictures, sounds, strict=True):
        kind, data = content(picture["src"])
        image = Image.open(io.BytesIO(data))
        assert (kind, image.format, image.height) == ("data:image/png", "PNG", 128)
        assert image.width >= 50
        assert picture["alt"].startswith("Spectrogram of ")
        kind, data = content(sound["src"])
        assert kind in ("data:audio/mpeg", "data:audio/flac")
        samples, rate = soundfile.read(io.BytesIO(data))
        assert rate == toy.RATE
        # 10 ms a column of the picture; MP3 pads its ends.
        assert len(samples) / rate == pytest.approx(image.width / 100, abs=0.15)


def test_names_are_text_and_the_odd_come_first(page):
    _, _, reader = page
    text = "".join(reader.text)
    assert "my <data>" in text
    assert "low/<b>&'\".wav" in text
    headings = (
        "The same recording in several classes",
        "Perhaps a wrong label",
        "Copies in different groups",
        "Clipped",
        "Least like the others",
        "Classes",
    )
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert re.search(r"the same bytes have the labels 'high' and 'noise'", text)
    assert re.search(r"labelled noise \(0\.\d\d\); perhaps high \(0\.\d\d\)", text)
    assert "6 of 12 clips." in text


def test_a_place_that_cannot_be_written_is_refused_first(page, tmp_path, inspected):
    folder, _, _ = page
    with pytest.raises(UnfreezeError, match=r"is a folder\. Give a file, such as clips\.html"):
        inspected(folder / "my <data>", *TOY, "--html", tmp_path)
    with pytest.raises(UnfreezeError, match=r"does not exist\. Make it first"):
        inspected(folder / "my <data>", *TOY, "--html", tmp_path / "none" / "a.html")
    with pytest.raises(UnfreezeError, match="--backbone is used with --depths and --html only"):
        inspected(folder / "my <data>", *TOY)
