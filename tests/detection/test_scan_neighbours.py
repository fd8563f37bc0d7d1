"""Scores do not depend on which recording happens to be read first, or is finished already."""

import time

import numpy as np
import pytest
import soundfile

from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection import scan
from unfreeze.detection.scan import Ended, neighbours, scan_files, with_neighbours
from unfreeze.detection.score_blocks import ScoreBlock

FRONT = FrontEnd()
HOP = 8


class Fickle:
    """Stands for a network whose last digits depend on the place in a batch and on its size."""

    def __init__(self):
        self.sizes = []

    def predict_on_batch(self, patches):
        self.sizes.append(len(patches))
        place = np.arange(len(patches)) + len(patches) / 1000
        return np.stack([patches.mean(axis=(1, 2)), place], axis=1)


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(3)
    paths = []
    for number, seconds in enumerate([0.5, 31, 2, 0.3, 1, 24, 6, 0.2]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, int(seconds * 16_000)), 16_000)
        paths.append(path)
    (tmp_path / "bad.wav").write_text("no sound")
    return [*paths[:3], tmp_path / "bad.wav", *paths[3:]]


def scores_of(paths, model=None):
    found, ended = {}, {}
    for number, item in scan_files(model or Fickle(), FRONT, paths, HOP, workers=3):
        if isinstance(item, ScoreBlock):
            assert number not in ended
            found.setdefault(paths[number], []).append(item.scores)
        elif isinstance(item, Ended):
            ended[number] = item
    assert sorted(ended) == list(range(len(paths)))
    return {path: np.concatenate(parts) for path, parts in found.items()}


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[p], other[p]) for p in one)


def test_the_order_of_reading_changes_no_score(recordings, monkeypatch):
    first = scores_of(recordings)
    assert min(map(len, first.values())) < 32
    assert max(map(len, first.values())) > 256
    read = scan.read_patches
    rng = np.random.default_rng(0)

    def late(*args):
        for item in read(*args):
            time.sleep(rng.uniform(0, 0.03))
            yield item

    monkeypatch.setattr(scan, "read_patches", late)
    for _ in range(3):
        assert equal(first, scores_of(recordings))


def test_what_is_left_has_the_scores_that_it_would_have_had(recordings, monkeypatch):
    monkeypatch.setattr(scan, "_NEIGHBOURS", 4)
    monkeypatch.setattr(scan, "_NEIGHBOURS_BYTES", 800_000)
    whole = scores_of(recordings)
    assert [list(group) for group in neighbours(recordings)] == [[0, 1], [2, 3, 4, 5], [6, 7], [8]]
    for wanted in ([1], [5], [8], [0, 7], [3, 8]):
        paths = [recordings[number] for number in wanted]
        again = scores_of(with_neighbours(recordings, set(paths)))
        assert all(np.array_equal(again[p], whole[p]) for p in paths if p.stem != "bad")
    # The model does depend on its batches: alone, a recording has other scores.
    assert not np.array_equal(scores_of([recordings[5]])[recordings[5]], whole[recordings[5]])


def test_damage_in_the_middle_keeps_what_was_before_it(monkeypatch, recordings):
    read = scan.read_patches

    def torn(path, *args):
        for number, item in enumerate(read(path, *args)):
            if path == recordings[1] and number == 2:
                raise scan.DataError("torn")
            yield item

    whole = scores_of(recordings)
    monkeypatch.setattr(scan, "read_patches", torn)
    part = scores_of(recordings)
    kept = part[recordings[1]]
    assert 0 < len(kept) < len(whole[recordings[1]])
    np.testing.assert_array_equal(kept[:, 0], whole[recordings[1]][: len(kept), 0])


def test_small_batches_where_a_large_one_would_be_padding(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(16_000 * 33) / 9, 16_000)
    model = Fickle()
    assert 256 + 128 < len(scores_of([path], model)[path]) < 512
    assert model.sizes == [256, 256]
    model.sizes.clear()
    soundfile.write(path, np.ones(16_000 * 8) / 9, 16_000)
    assert 64 < len(scores_of([path], model)[path]) < 96
    assert model.sizes == [32, 32, 32]
