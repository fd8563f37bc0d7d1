"""Silent classes in short clips: how many, from where, and that nothing else changes."""

import numpy as np
import pytest

from unfreeze.audio.background_clips import PIECE, SHARE, cut_quiet
from unfreeze.audio.manifest import Clip, Manifest
from unfreeze.audio.split import PARTS, Split
from unfreeze.backbones.frontend import FrontEnd


class View:
    """Stands for a `PatchView`: knows only which patch is of which clip."""

    def __init__(self, clip, number=None):
        self.clip = np.asarray(clip, np.int64)
        self.number = np.arange(len(self.clip)) if number is None else number

    def __len__(self):
        return len(self.clip)

    def take(self, numbers, clip):
        return View(clip, self.number[numbers])


def data(*clips):
    """(label, patches) of clips that all train."""
    made = tuple(
        Clip(f"{i}.wav", label, f"g{i}", None, 1.0, 16_000, 1, f"c{i}")
        for i, (label, _) in enumerate(clips)
    )
    labels = tuple(sorted({label for label, _ in clips}))
    view = View(np.repeat(np.arange(len(clips)), [count for _, count in clips]))
    split = Split(np.arange(len(clips)), *[np.zeros(0, np.int64)] * 2)
    nothing = View(np.zeros(0, np.int64))
    parts = {"train": view, "validation": nothing, "test": nothing}
    return Manifest("root", made, labels, (), "f"), split, parts


def cut(*clips):
    return cut_quiet(*data(*clips), FrontEnd())


def test_without_a_silent_class_all_stays():
    manifest, split, parts = data(("cat", 3), ("dog", 200))
    found = cut_quiet(manifest, split, parts, FrontEnd())
    assert found.manifest is manifest
    assert found.split is split
    assert found.parts == parts
    assert found.notes == ()


def test_hours_of_background_do_not_swamp_the_classes():
    found = cut(("cat", 20), ("dog", 50), ("background", 7_000), ("background", 4_000))
    view = found.parts["train"]
    label = np.array([found.manifest.clips[i].label for i in view.clip])
    assert (label == "background").sum() == SHARE * 50
    assert ((label == "cat").sum(), (label == "dog").sum()) == (20, 50)
    # Half from each recording, from its beginning to its end.
    taken = view.number[label == "background"]
    first, second = taken[taken < 7_070] - 70, taken[taken >= 7_070] - 7_070
    assert len(first) == len(second) == 50
    assert first.min() < 700
    assert first.max() > 6_300
    assert "100 are used" in found.notes[0]
    assert "11,000" in found.notes[0]


def test_a_piece_says_where_it_is_in_its_recording():
    found = cut(("cat", 20), ("background", 100))
    view = found.parts["train"]
    for number in np.unique(view.clip[view.clip > 1]):
        clip, first = found.manifest.clips[number], view.number[view.clip == number][0]
        # A patch of YAMNet begins every 0.48 s; the recording's first is number 20.
        assert clip.start == pytest.approx((first - 20) * 0.48)
        assert clip.end - clip.start == pytest.approx(clip.seconds) == pytest.approx(2.88)


def test_short_sounds_are_all_used_before_a_long_one_gives_a_second_piece():
    found = cut(("cat", 20), *[("background", 3)] * 10, ("background", 9_000))
    view = found.parts["train"]
    per_clip = np.bincount(view.clip)
    assert list(per_clip[1:11]) == [3] * 10
    assert per_clip[11:].sum() == SHARE * 20 - 30
    # Whole recordings keep their number; nothing is made of them.
    assert len(found.manifest.clips) == 12 + (SHARE * 20 - 30) // PIECE


def test_pieces_are_clips_of_their_own_in_the_group_of_their_recording():
    found = cut(("cat", 40), ("background", 23))
    new = found.manifest.clips[2:]
    assert len(new) == 4
    assert {clip.group for clip in new} == {"g1"}
    assert len({clip.content for clip in new}) == 4
    assert list(np.bincount(found.parts["train"].clip)[2:]) == [5] * 4
    assert [clip.seconds for clip in new] == pytest.approx([2.88] * 4)
    assert found.split.train.tolist() == [0, 2, 3, 4, 5]


def test_scored_parts_have_few_clips_of_background():
    manifest, _, parts = data(*[("cat", 2)] * 3, ("background", 500), ("dog", 2))
    split = Split(np.array([4]), np.zeros(0, np.int64), np.arange(4))
    parts = {
        "train": View(np.full(2, 4)),
        "validation": View([]),
        "test": View(parts["train"].clip[:-2]),
    }
    found = cut_quiet(manifest, split, parts, FrontEnd())
    labels = [found.manifest.clips[i].label for i in found.split.test]
    assert labels.count("cat") == 3
    assert 1 <= labels.count("background") <= SHARE * 3


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_counts_no_patch_is_used_twice_and_none_of_a_class_is_lost(seed):
    rng = np.random.default_rng(seed)
    clips = [
        (str(rng.choice(["a", "b", "background"])), int(rng.integers(1, 80))) for _ in range(9)
    ]
    found = cut(("a", 4), *clips)
    view = found.parts["train"]
    assert len(np.unique(view.number)) == len(view)
    assert (np.diff(view.number) > 0).all()
    for label in {"a", *(name for name, _ in clips)} - {"background"}:
        used = sum(found.manifest.clips[i].label == label for i in view.clip)
        assert used == sum(n for name, n in clips if name == label) + 4 * (label == "a")
    assert set(found.split.train) == set(view.clip.tolist())
    assert set(PARTS) == set(found.parts)
    largest = max(
        np.sum([found.manifest.clips[i].label == name for i in view.clip]) for name in ("a", "b")
    )
    quiet = sum(found.manifest.clips[i].label == "background" for i in view.clip)
    # A recording that is too short for two pieces is one, whole.
    assert quiet < SHARE * largest + 2 * PIECE
