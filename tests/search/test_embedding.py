"""From recordings to an index: the network's numbers, resumed, appended, killed."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import forked
import toy
from unfreeze.audio.front_ends import patches_of
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError, UnfreezeError
from unfreeze.search.embedding import _groups, embed, open_index_encoder, vectors_of
from unfreeze.search.index_folder import open_index

HERE = Path(__file__).resolve().parents[1]


def by_recording(index):
    """What an index holds of each recording, whatever their order."""
    return {
        item.path.name: (
            item.rows,
            item.seconds,
            index.vectors(item.first, item.first + item.rows).tobytes(),
            b"" if not index.labels else index.scores(item.first, item.first + item.rows).tobytes(),
        )
        for item in index.recordings
    }


def test_the_index_holds_what_the_head_reads_and_what_the_run_says(index, field, classifier):
    assert index.labels == classifier.labels
    assert (index.settings.numbers, index.settings.hop) == (64, 0.96)
    item = next(item for item in index.recordings if item.path.name == "a.wav")
    assert (item.rows, item.seconds, item.sample_rate) == (21, 20.0, toy.RATE)
    rows = item.first, item.first + item.rows
    blocks = list(classifier.scan(item.path, hop=0.96))
    np.testing.assert_allclose(index.scores(*rows), blocks[0].scores, atol=1e-3)
    places = [index.place(row) for row in range(*rows)]
    np.testing.assert_allclose([place.start for place in places], blocks[0].starts, atol=1e-9)
    np.testing.assert_allclose([place.end for place in places], blocks[0].ends, atol=1e-9)
    # The toy head reads the mean over time of each band; it is linear: it gives the same again.
    head = classifier.model.get_layer("patch_classifier").get_layer("transfer_output")
    kernel, bias = head.get_weights()
    logits = index.vectors(*rows).astype(np.float32) @ kernel + bias
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, blocks[0].scores, atol=0.02)


def test_nothing_is_heard_in_digital_silence(index):
    item = next(item for item in index.recordings if item.path.name == "silence.wav")
    assert not index.scores(item.first, item.first + item.rows).any()


def test_an_example_has_the_vectors_of_the_recording_it_is(index, field):
    encoder = open_index_encoder(index)
    found = vectors_of(encoder, index.settings, field / "high.wav")
    item = next(item for item in index.recordings if item.path.name == "high.wav")
    np.testing.assert_allclose(
        found.vectors.astype(np.float32),
        index.vectors(item.first, item.first + item.rows).astype(np.float32),
        rtol=2e-3,
        atol=2e-3,
    )
    with pytest.raises(DataError, match=r"none\.wav"):
        vectors_of(encoder, index.settings, field / "none.wav")


@pytest.fixture
def copied(tmp_path, field):
    """The recordings in a folder of the test's own."""
    return Path(shutil.copytree(field, tmp_path / "field"))


def test_new_and_changed_recordings_are_added_and_the_others_not_read(copied, tmp_path, toy_run):
    files, seen = sorted(copied.iterdir()), []
    out = tmp_path / "index"
    embed(files[:3], out, run=toy_run)
    index = embed(files, out, on_recording=seen.append)
    assert [item.recording.name for item in seen] == [file.name for file in files[3:]]
    whole = embed(files, tmp_path / "whole", run=toy_run)
    assert by_recording(index).keys() == by_recording(whole).keys()
    for name, (rows, seconds, vectors, scores) in by_recording(index).items():
        other = by_recording(whole)[name]
        assert (rows, seconds) == other[:2]
        for mine, theirs in ((vectors, other[2]), (scores, other[3])):
            a, b = (np.frombuffer(x, np.float16).astype(np.float32) for x in (mine, theirs))
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
    soundfile.write(copied / "low.wav", np.ones(2 * toy.RATE) * 0.1, toy.RATE)
    (copied / "a.wav").unlink()
    seen.clear()
    index = embed(sorted(copied.iterdir()), out, run=toy_run, on_recording=seen.append)
    assert [(item.recording.name, item.seconds) for item in seen] == [("low.wav", 2.0)]
    changes = {item.path.name: item.change() for item in index.recordings}
    assert changes.pop("a.wav") == "is no longer there"
    assert set(changes.values()) == {None}
    assert index.rows == whole.rows - 1


def test_a_recording_is_added_once_whatever_its_name(copied, tmp_path, toy_run):
    files = sorted(copied.iterdir())
    (tmp_path / "link").symlink_to(copied)
    up = copied / ".." / copied.name / files[0].name
    before = embed([up, *files[:2], files[0]], tmp_path / "index", run=toy_run)
    assert [item.path for item in before.recordings] == files[:2]
    seen = []
    linked = [tmp_path / "link" / path.name for path in files[:3]]
    after = embed([*linked, up], tmp_path / "index", on_recording=seen.append)
    assert [item.recording for item in seen] == [linked[2]]
    assert after.recordings[:2] == before.recordings
    assert len(after.recordings) == 3


def test_an_unreadable_recording_is_named_and_left_out(copied, tmp_path, toy_run):
    (copied / "text.wav").write_text("no sound")
    seen = []
    index = embed(sorted(copied.iterdir()), tmp_path / "i", run=toy_run, on_recording=seen.append)
    wrong = [item for item in seen if item.error is not None]
    assert [item.recording.name for item in wrong] == ["text.wav"]
    assert "text.wav" in str(wrong[0].error)
    assert len(index.recordings) == len(seen) - 1 == 6


KILLED = """
import os, signal, sys
from pathlib import Path
from unfreeze.detection import journal, scan
from unfreeze.search import embedding
scan._NEIGHBOURS = embedding.neighbours.__globals__["_NEIGHBOURS"] = 2
add, left = journal.Journal.add_together, [int(sys.argv[4])]
def killed(self, lines):
    # The rows are on the disk, and nothing tells of them yet.
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, lines)
journal.Journal.add_together = killed
embedding.embed(sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2]), run=Path(sys.argv[3]))
"""


def test_a_killed_one_ends_with_the_same_numbers_to_the_bit(copied, tmp_path, toy_run, monkeypatch):
    # It is left each time, and shares a group with the first.
    (copied / "aa.wav").write_text("no sound")
    place = os.pathsep.join([str(HERE), *sys.path])

    def start(kills):
        environment = {**os.environ, "PYTHONPATH": place}
        return forked.run(KILLED, copied, tmp_path / "i", toy_run, kills, env=environment)[0]

    assert start(1) == -signal.SIGKILL
    assert 0 < len(open_index(tmp_path / "i").recordings) <= 2
    begun = by_recording(open_index(tmp_path / "i"))
    monkeypatch.setattr("unfreeze.detection.scan._NEIGHBOURS", 2)
    again = embed(sorted(copied.iterdir()), tmp_path / "i", run=toy_run)
    whole = embed(sorted(copied.iterdir()), tmp_path / "whole", run=toy_run)
    assert by_recording(again) == by_recording(whole)
    assert again.rows == whole.rows
    assert begun.items() <= by_recording(again).items()


def test_groups_are_those_of_all_recordings(monkeypatch, tmp_path):
    monkeypatch.setattr("unfreeze.detection.scan._NEIGHBOURS", 3)
    files = [tmp_path / f"{n}.wav" for n in range(8)]
    assert _groups(files, files) == [range(3), range(3, 6), range(6, 8)]
    assert _groups(files, [files[n] for n in (1, 3, 4, 5, 7)]) == [
        range(1),
        range(1, 4),
        range(4, 5),
    ]
    assert _groups(files, []) == []


def test_what_cannot_be_used_is_refused_before_anything_is_written(index, field, tmp_path, toy_run):
    files, out = sorted(field.iterdir()), tmp_path / "out"
    with pytest.raises(DataError, match="No recordings are given"):
        embed([], out, run=toy_run)
    with pytest.raises(UnfreezeError, match="leave out --backbone"):
        embed(files, out, run=toy_run, backbone="yamnet")
    with pytest.raises(UnfreezeError, match="Did you mean 'yamnet'"):
        embed(files, out, backbone="yamnt")
    with pytest.raises(RunError, match="does not exist"):
        embed(files, out, run=tmp_path / "no_run")
    assert not out.exists()
    with pytest.raises(RunError, match=r"hop was 0\.96 and is 0\.48"):
        embed(files, index.folder, hop=0.48)
    with pytest.raises(UnfreezeError, match="a hop of 2 s cannot be used"):
        embed(files, index.folder, hop=2)
    with pytest.raises(RunError, match="of was 'run' and is 'yamnet'"):
        embed(files, index.folder, backbone="yamnet")


def test_another_model_is_refused_and_overwrite_begins_again(copied, tmp_path, toy_run, classifier):
    files, out = sorted(copied.iterdir()), tmp_path / "index"
    index = embed(files[:2], out, run=toy_run)
    other = tmp_path / "other.keras"
    classifier.save(other)
    with pytest.raises(RunError, match=r"encoder was '.*' and is"):
        embed(files, out, run=other)
    assert len(open_index(out).recordings) == len(index.recordings) == 2
    again = embed(files[1:], out, run=other, overwrite=True)
    assert len(again.recordings) == len(files) - 1
    (out / "encoder.keras").write_bytes(toy_run.read_bytes())
    with pytest.raises(RunError, match="is not the model that made the index"):
        embed(files, out)


def test_without_a_run_a_vector_is_the_embedding(field, tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    files = sorted(field.iterdir())
    index = embed(files[:5], tmp_path / "index", backbone="toy")
    assert (index.labels, index.settings.of, index.settings.numbers) == ((), "toy", 64)
    assert index.scores(0, 1) is None
    more = embed(files, tmp_path / "index")
    assert more.settings == index.settings
    assert len(more.recordings) == 6
    patches = patches_of(soundfile.read(files[0], dtype="float32")[0], FrontEnd().with_steps(96))
    expected = toy.build_toy().predict(patches, verbose=0)
    rows = more.recordings[0].rows
    found = more.vectors(0, rows).astype(np.float32)
    np.testing.assert_allclose(found, expected[:rows], rtol=2e-3, atol=2e-3)


def test_a_long_embedding_is_projected_and_keeps_its_angles(field, tmp_path, monkeypatch):
    toy.register(monkeypatch, tmp_path)
    base = toy.build_toy()
    monkeypatch.setattr("unfreeze.search.encoder.NUMBERS", 48)
    index = embed(sorted(field.iterdir())[:3], tmp_path / "index", backbone="toy")
    assert index.settings.numbers == 48
    item = index.recordings[0]
    patches = patches_of(soundfile.read(item.path, dtype="float32")[0], FrontEnd().with_steps(96))
    both = (
        base.predict(patches, verbose=0)[: item.rows],
        index.vectors(item.first, item.first + item.rows).astype(np.float32),
    )
    angles = []
    for rows in both:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        angles.append((unit @ unit.T)[np.triu_indices(len(unit), 1)])
    assert np.corrcoef(*angles)[0, 1] > 0.9
