"""Clips that are worth a look: which, where from, and that they are the recording's own."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import toy
import unfreeze
from unfreeze.audio.manifest import read_manifest
from unfreeze.audio.segments_file import read_segments
from unfreeze.audio.sources import find_source
from unfreeze.audio.split import split_clips
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.review.candidate_clips import (
    Candidate,
    best_of,
    cut_clip,
    find_candidates,
    write_folder,
)

HOP, WINDOW = 0.48, 0.96


class Scorer:
    """Stands for a classifier: gives the scores that it was made with."""

    def __init__(self, scores, labels=("cat", "dog"), block=7):
        self.scores, self.labels, self.block = np.asarray(scores, np.float32), labels, block

    def scan(self, path):
        starts = np.arange(len(self.scores)) * HOP
        ends = np.minimum(starts + WINDOW, starts[-1] + WINDOW)
        for at in range(0, len(starts), self.block):
            part = slice(at, at + self.block)
            yield ScoreBlock(starts[part], self.scores[part], ends[part])


def candidates(scores, labels=("cat", "dog"), **options):
    options = {"per_class": 50, "length": 2.0, **options}
    return find_candidates(Scorer(scores, labels), Path("a.wav"), **options)


def ramp(n=100, seed=0):
    first = np.random.default_rng(seed).uniform(0, 1, n)
    return np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize("uncertain", [False, True])
@pytest.mark.parametrize("length", [0.5, 2.0, 7.3])
def test_clips_of_a_recording_never_overlap_and_stay_within_it(uncertain, length):
    found = sorted(candidates(ramp(), length=length, uncertain=uncertain), key=lambda c: c.start)
    assert len(found) >= 5
    for a, b in itertools.pairwise(found):
        assert b.start >= a.end - 1e-9
    assert found[0].start >= 0
    assert found[-1].end <= 99 * HOP + WINDOW + 1e-9
    assert all(c.end - c.start == pytest.approx(length) for c in found)


def test_the_best_window_stands_in_the_middle_of_the_first_clip():
    scores = np.full((50, 2), [0.5, 0.5])
    scores[20], scores[31] = [0.1, 0.9], [0.8, 0.2]
    first, second, *_ = candidates(scores)
    assert (first.label, first.score, first.margin) == (
        "dog",
        pytest.approx(0.9),
        pytest.approx(0.8),
    )
    assert (first.start + first.end) / 2 == pytest.approx(20 * HOP + WINDOW / 2)
    assert (second.label, second.score) == ("cat", pytest.approx(0.8))


def test_uncertain_means_the_smallest_margin_first():
    scores = np.full((50, 2), [0.9, 0.1])
    scores[10], scores[40] = [0.52, 0.48], [0.45, 0.55]
    found = candidates(scores, uncertain=True)
    assert [round(c.margin, 2) for c in found[:2]] == [0.04, 0.1]
    assert [c.label for c in found[:2]] == ["cat", "dog"]


def test_background_is_no_event_but_may_be_in_doubt():
    scores = np.full((50, 2), [0.98, 0.02])
    scores[25] = [0.4, 0.6]
    found = candidates(scores, labels=("background", "dog"))
    assert [c.label for c in found] == ["dog"]
    doubtful = candidates(scores, labels=("background", "dog"), uncertain=True)
    assert doubtful[0].label == "dog"
    assert {c.label for c in doubtful} == {"background", "dog"}


def test_no_more_than_asked_for_of_each_class():
    found = candidates(ramp(), length=0.5, per_class=3)
    assert sorted(c.label for c in found) == ["cat"] * 3 + ["dog"] * 3
    many = [Candidate(Path(f"{i}.wav"), 0.0, 1.0, "dog", i / 10, (9 - i) / 10) for i in range(10)]
    assert [c.score for c in best_of(many, 3)["dog"]] == [0.9, 0.8, 0.7]
    assert [c.score for c in best_of(many, 3, uncertain=True)["dog"]] == [0.9, 0.8, 0.7]
    assert best_of([], 3) == {}


def test_a_recording_shorter_than_a_clip_is_taken_whole():
    (only,) = candidates(ramp(2), length=10.0)
    assert (only.start, only.end) == (0, pytest.approx(HOP + WINDOW))


FORMATS = [
    ("wav", "PCM_16", "int16", "PCM_16"),
    ("wav", "PCM_24", "int32", "PCM_24"),
    ("wav", "PCM_U8", "int16", "PCM_U8"),
    ("wav", "FLOAT", "float32", "FLOAT"),
    ("wav", "DOUBLE", "float64", "DOUBLE"),
    ("flac", "PCM_16", "int16", "PCM_16"),
    ("flac", "PCM_24", "int32", "PCM_24"),
    ("wav", "ULAW", "float32", "FLOAT"),
    ("ogg", "VORBIS", "float32", "FLOAT"),
]


@pytest.mark.parametrize(("ending", "subtype", "dtype", "expected"), FORMATS)
def test_a_clip_has_the_rate_channels_and_samples_of_its_source(
    tmp_path, ending, subtype, dtype, expected
):
    source = tmp_path / f"a.{ending}"
    sound = np.random.default_rng(0).normal(scale=0.2, size=(44_100, 2))
    soundfile.write(source, sound, 22_050, subtype)
    clip = cut_clip(source, 0.5, 1.25, tmp_path / "out" / "clip.1")
    assert clip.name == ("clip.1.flac" if ending == "flac" else "clip.1.wav")
    info = soundfile.info(clip)
    assert (info.samplerate, info.channels, info.subtype) == (22_050, 2, expected)
    whole, _ = soundfile.read(source, dtype=dtype)
    part, _ = soundfile.read(clip, dtype=dtype)
    first = round(0.5 * 22_050)
    if ending == "ogg":
        # A seek within Vorbis starts the decoder anew: equal but for rounding.
        np.testing.assert_allclose(part, whole[first : first + len(part)], atol=1e-4)
    else:
        np.testing.assert_array_equal(part, whole[first : first + len(part)])
    assert len(part) == round(1.25 * 22_050) - first


def test_a_recording_that_is_gone_is_named(tmp_path):
    with pytest.raises(unfreeze.DataError, match=r"gone\.wav"):
        cut_clip(tmp_path / "gone.wav", 0, 1, tmp_path / "x")


@pytest.fixture
def written(tmp_path):
    """Clips of three recordings, two of them of one name."""
    rng = np.random.default_rng(0)
    chosen = {"dog": [], "cat": []}
    for number, name in enumerate(("a/site 1.wav", "b/site 1.wav", "c.wav")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, rng.normal(scale=0.1, size=80_000), 16_000)
        for at in range(4):
            label = "dog" if at % 2 else "cat"
            chosen[label].append(
                Candidate(tmp_path / name, at * 1.0, at + 0.5, label, 0.9 - number / 10, 0.5)
            )
    found = write_folder(tmp_path / "out", chosen, run="r", command="c", labels=("cat", "dog"))
    return tmp_path / "out", found


def test_a_recording_whose_name_is_not_utf8_is_cut_and_noted(tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(os.fsencode(source), np.zeros(16_000), 16_000, format="WAV")
    chosen = {"a": [Candidate(source, 0.0, 0.5, "a", 0.9, 0.8)]}
    write_folder(tmp_path / "out", chosen, run="r", command="c", labels=("a",))
    (segment,) = read_segments(tmp_path / "out").segments
    assert segment.source == str(source)
    assert soundfile.info(tmp_path / "out" / segment.file).duration == 0.5


def test_the_folder_remembers_where_each_clip_came_from(written):
    folder, found = written
    assert read_segments(folder) == found
    assert {s.label for s in found.segments} == {"cat", "dog"}
    assert len({Path(s.file).name for s in found.segments}) == 12
    for segment in found.segments:
        part, rate = soundfile.read(folder / segment.file)
        whole, _ = soundfile.read(segment.source)
        first = round(segment.start * rate)
        np.testing.assert_array_equal(part, whole[first : first + len(part)])
    assert found.segments[0].file == "dog/001_0.900_site_1_0h00m01.00s.wav"
    names = sorted(p.name for p in (folder / "dog").iterdir())
    assert [name[:3] for name in names] == [f"{i:03d}" for i in range(1, 7)]


def test_clips_of_one_recording_are_one_group_wherever_they_are_moved(written):
    folder, found = written
    files = sorted(folder.glob("*/*.wav"))
    files[0].rename(folder / "dog" / files[0].name)
    # Renamed: then its content tells where it came from.
    files[1].rename(folder / "cat" / "my clip.wav")
    # Cut shorter in an editor: then its name does.
    sound, rate = soundfile.read(files[2])
    soundfile.write(files[2], sound[:4000], rate)
    manifest = read_manifest(folder)
    groups = {clip.group for clip in manifest.clips}
    assert groups == {s.source_sha256 for s in found.segments}
    assert len(groups) == 3
    split = split_clips(manifest)
    for part, clips in split.parts().items():
        assert len({manifest.clips[i].group for i in clips}) == 1, part


def test_a_damaged_segments_file_is_an_error_and_no_silent_leak(written):
    folder, _ = written
    file = folder / "segments.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "unfreeze_segments": 9}))
    with pytest.raises(unfreeze.DataError, match="format 9"):
        read_manifest(folder)
    file.write_text("{")
    with pytest.raises(unfreeze.DataError, match="cut the clips again"):
        read_manifest(folder)


def test_clips_are_not_mixed_with_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(unfreeze.RunError, match="not empty"):
        write_folder(tmp_path, {}, run="r", command="c", labels=("a",))


@pytest.mark.parametrize("label", ["rain/thunder", "50% rain", ".hidden", "a\\b"])
def test_a_class_that_cannot_be_a_folders_name_comes_back_as_it_was(label, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    cut = {label: [Candidate(tmp_path / "x.wav", 0.0, 1.0, label, 1.0, 1.0)]}
    folder = tmp_path / "cut"
    write_folder(folder, cut, run="r", command="c", labels=(label,))
    assert len([place for place in folder.iterdir() if place.is_dir()]) == 1
    (entry,) = find_source(folder).entries
    assert entry.label == label


def test_a_trained_classifier_cuts_the_sounds_it_was_trained_on(monkeypatch, tmp_path):
    toy.register(monkeypatch, tmp_path)
    classifier = unfreeze.SoundClassifier.train(
        toy.write_sounds(tmp_path / "data", clips=10), "head_only",
        backbone="toy", epochs=25, batch_size=4, learning_rate=0.01,
    )  # fmt: skip
    time = np.arange(16_000 * 12) / 16_000
    sound = 0.1 * np.random.default_rng(3).normal(size=len(time))
    for _, begin, pitch in (("high", 3, 3000), ("low", 8, 250)):
        span = slice(16_000 * begin, 16_000 * (begin + 2))
        sound[span] = 0.3 * np.sin(6.283 * pitch * time[span])
    soundfile.write(tmp_path / "long.wav", sound, 16_000)
    found = find_candidates(classifier, tmp_path / "long.wav", per_class=1, length=1.0)
    centre = {c.label: (c.start + c.end) / 2 for c in found}
    assert 3 <= centre["high"] <= 5
    assert 8 <= centre["low"] <= 10
