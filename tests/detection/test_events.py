import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.detection.events import Event, EventFinder, ScoreBlock, find_events

LABELS = ("cat", "dog")


def events(*scores, hop=0.5, window=1.0, high=0.5, **options):
    """Events of one class, "cat"."""
    column = np.array(scores, dtype=np.float64)[:, None]
    return find_events(column, np.arange(len(scores)) * hop, window, ["cat"], high, **options)


def spans(found):
    return [(round(e.start, 6), round(e.end, 6)) for e in found]


def test_a_patch_speaks_for_its_middle_half():
    assert events(0, 0.9, 0, 0) == [Event(0.75, 1.25, "cat", 0.9)]


def test_the_first_and_last_patch_speak_to_the_ends_of_the_recording():
    assert spans(events(0.9, 0, 0)) == [(0.0, 0.75)]
    assert spans(events(0, 0, 0.9)) == [(1.25, 2.0)]
    assert spans(events(0, 0, 0.9, duration=1.4)) == [(1.25, 1.4)]
    assert spans(events(0.9, duration=0.1)) == [(0.0, 0.1)]


def test_hysteresis_begins_at_the_threshold_and_goes_on_above_half_of_it():
    assert spans(events(0.3, 0.5, 0.25, 0.3, 0.2, 0)) == [(0.75, 2.25)]
    assert events(0.3, 0.49, 0.3, 0) == []
    # Another threshold, another half.
    assert spans(events(0, 0.8, 0.39, 0, high=0.8)) == [(0.75, 1.25)]
    assert spans(events(0, 0.8, 0.41, 0, high=0.8)) == [(0.75, 1.75)]


def test_the_score_is_the_largest_within():
    assert events(0, 0.6, 0.95, 0.7, 0)[0].score == 0.95


def test_with_the_default_hop_middles_meet_and_do_not_overlap():
    scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    found = find_events(scores, np.arange(4) * 0.5, 1.0, LABELS, 0.5)
    assert spans(found) == [(0, 0.75), (0.75, 1.25), (1.25, 1.75), (1.75, 2.5)]
    assert [e.label for e in found] == ["cat", "dog", "cat", "dog"]


def test_what_overlaps_or_adjoins_at_a_fine_hop_is_one_event():
    # Middles of 0.5 s every 0.25 s: one low patch leaves no gap, two leave none, three do.
    for gap, count in ((1, 1), (2, 2)):
        found = events(0, 0, 0.9, *[0] * gap, 0.9, 0, 0, hop=0.25)
        assert len(found) == count, gap
    assert spans(events(0, 0, 0.9, 0, 0.9, 0, 0, hop=0.25)) == [(0.75, 1.75)]


def test_patches_side_by_side_speak_for_all_of_themselves():
    assert spans(events(0, 0.9, 0, hop=1.0)) == [(1.0, 2.0)]


def test_without_merge_each_patch_is_a_row():
    found = events(0, 0.9, 0.6, 0.4, merge=False)
    assert found == [Event(0.5, 1.5, "cat", 0.9), Event(1.0, 2.0, "cat", 0.6)]


def test_smooth_drops_a_single_patch_and_keeps_two():
    assert events(0, 0, 0.9, 0, 0, smooth=True) == []
    assert spans(events(0, 0, 0.9, 0.8, 0, 0, smooth=True)) == [(1.25, 2.25)]
    assert spans(events(0.9, 0.9, 0.1, 0.9, 0.9, 0, 0, smooth=True)) == [(0, 2.75)]


def test_thresholds_are_by_class():
    scores = np.array([[0.0, 0.0], [0.6, 0.6], [0.0, 0.0], [0.0, 0.0]])
    found = find_events(scores, np.arange(4) * 0.5, 1.0, LABELS, np.array([0.7, 0.5]))
    assert [e.label for e in found] == ["dog"]


def blocks(scores, starts, ends, cuts):
    parts = np.split(np.arange(len(starts)), sorted(min(c, len(starts)) for c in cuts))
    return [ScoreBlock(starts[p], scores[p], ends[p]) for p in parts]


@settings(deadline=None, max_examples=200)
@given(
    scores=st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.9])] * 2), min_size=1,
                    max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    hop=st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]),
    lost=st.floats(0, 0.9),
)  # fmt: skip
def test_events_obey_their_laws_however_the_scores_are_cut(scores, cuts, hop, lost):
    table = np.array(scores)
    starts = np.arange(len(table)) * hop
    duration = starts[-1] + 1.0 - lost * hop
    ends = np.minimum(starts + 1.0, duration)
    whole = find_events(table, starts, 1.0, LABELS, 0.5, duration=duration)
    for prompt in (False, True):
        finder = EventFinder(LABELS, 0.5, 1.0, hop, prompt=prompt)
        found = [e for block in blocks(table, starts, ends, cuts) for e in finder.push(block)]
        found = sorted([*found, *finder.finish()], key=lambda e: (e.start, e.label))
        if not prompt:
            assert found == whole
        for label, column in zip(LABELS, table.T, strict=True):
            mine = [e for e in found if e.label == label]
            assert all(0 <= e.start < e.end <= duration + 1e-9 for e in mine)
            # Never two at once of one class, and something wherever a patch reaches 0.5.
            assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(mine))
            assert bool(mine) == bool((column >= 0.5).any())
            assert max((e.score for e in mine), default=0) == max([0, *column[column >= 0.5]])
            middles = (
                starts[column >= 0.5] + (np.minimum(1.0, duration - starts) / 2)[column >= 0.5]
            )
            inside = [any(e.start <= m <= e.end for e in mine) for m in middles]
            assert all(inside)


def test_prompt_gives_an_event_with_the_first_patch_that_is_low():
    finder = EventFinder(["cat"], 0.5, 1.0, 0.125, prompt=True)
    waits = EventFinder(["cat"], 0.5, 1.0, 0.125)
    given = []
    for i, score in enumerate([0, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1]):
        block = ScoreBlock(np.array([i / 8]), np.array([[score]]), np.array([i / 8 + 1]))
        given.append((finder.push(block), waits.push(block)))
    assert [len(now) for now, _ in given] == [0, 0, 0, 1, 0, 0, 0, 0]
    # The other waits until no patch can adjoin, and gives the same.
    assert [len(later) for _, later in given] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert given[3][0] == given[6][1] == [Event(0.375, 1.0, "cat", 0.9)]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_recording_of_no_or_one_patch(rows):
    assert len(events(*[0.9] * rows)) == rows
