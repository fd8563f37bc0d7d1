import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.detection.events import (
    DetectOptions,
    Event,
    EventFinder,
    EventStart,
    find_events,
)
from unfreeze.detection.score_blocks import ScoreBlock
from unfreeze.errors import UnfreezeError

LABELS = ("cat", "dog")


def events(*scores, hop=0.5, window=1.0, high=0.5, **options):
    """Events of one class, "cat"."""
    column = np.array(scores, dtype=np.float64)[:, None]
    return find_events(column, np.arange(len(scores)) * hop, window, ["cat"], high, **options)


def spans(found):
    return [(round(e.start, 3), round(e.end, 3)) for e in found]


def test_a_sound_begins_where_the_first_window_ends_in_which_it_is_heard():
    """A sound from 3.0 to 4.5 s; a window scores high once a third of it is filled."""
    starts = np.arange(80) * 0.1
    filled = np.clip(np.minimum(starts + 1, 4.5) - np.maximum(starts, 3.0), 0, 1)
    scores = np.clip(filled / 0.4, 0, 1)[:, None] * [[0.9]]
    quiet = 1 - np.clip(filled / 0.1, 0, 1)[:, None]
    alone = find_events(scores, starts, 1.0, ["cat"], 0.5)
    columns = np.hstack([scores, quiet, 1 - scores - quiet])
    labels = ["cat", "background", "dog"]
    beside = find_events(columns, starts, 1.0, labels, np.array([0.5, 1, 1]))
    assert spans(alone) == [(pytest.approx(3.0, abs=0.15), pytest.approx(4.5, abs=0.15))]
    # Where there is a background, what is heard tells it, whatever it is taken for.
    assert spans(beside) == [(pytest.approx(3.0, abs=0.06), pytest.approx(4.5, abs=0.06))]


def test_crossings_between_windows_are_interpolated():
    # It is heard from 0.02 of the threshold on, when 0.1 s of a window are filled.
    # Scores are compared in logarithms, from a tenth of that on: 0.001, 0.01, 0.9.
    found = events(0, 0.9, 0.9, 0, 0)[0]
    share = np.log(0.01 / 0.001) / np.log(0.9 / 0.001)
    assert found.start == pytest.approx(0.5 * share + 1 - 0.1)
    assert found.end == pytest.approx(1 + 0.5 * (1 - share) + 0.1)
    assert (found.label, found.score) == ("cat", 0.9)
    # The same for a sum of classes that are not background: half, and 0.05 s.
    scores = np.array([[0, 1, 0], *[[0.8, 0, 0.2]] * 3, [0, 1, 0], [0, 1, 0]])
    found = find_events(scores, np.arange(6) * 0.5, 1.0, ["cat", "background", "dog"], 0.5)[0]
    assert (found.start, found.end) == (pytest.approx(0.25 + 0.95), pytest.approx(1.75 + 0.05))


def test_next_to_another_sound_the_middle_of_the_crossing_window_counts():
    """A dog until 4 s, then a cat; no window is without one of them, but the first and last."""
    cat = np.clip((np.arange(80) * 0.1 + 1 - 4.0), 0, 1)
    cat[-12:] = 0
    dog, quiet = np.where(np.arange(80) < 68, 1 - cat, 0), np.arange(80) >= 68
    scores = np.stack([cat, dog, quiet], axis=1)
    found = find_events(scores, np.arange(80) * 0.1, 1.0, ["cat", "dog", "background"], 0.5)
    assert [e.label for e in found] == ["dog", "cat"]
    assert found[1].start == pytest.approx(4.0)
    # The dog's score is half of its threshold a quarter of a window later.
    assert found[0].end == pytest.approx(4.25)


def test_a_start_is_sought_within_a_window_and_not_further():
    # Something that is no cat is heard in windows for 1 s, or for 2 s, before the cat.
    for before, start in ((4, 0.125 + 0.95), (8, 2.125 + 0.5)):
        scores = np.zeros((24, 2))
        scores[:, 1] = 1
        scores[1 : 1 + before, 1] = 0
        scores[1 : 1 + before, 0] = 0.1
        scores[1 + before : 9 + before] = [0.9, 0.1]
        column = np.column_stack([scores, 1 - scores.sum(axis=1)])
        labels = ["cat", "background", "dog"]
        found = find_events(column, np.arange(24) * 0.25, 1.0, labels, 0.5)
        cats = [e for e in found if e.label == "cat"]
        assert cats[0].start == pytest.approx(start), before


def test_the_first_and_last_patch_speak_to_the_ends_of_the_recording():
    assert spans(events(0.9, 0, 0)) == [(0.0, 0.431)]
    assert spans(events(0, 0, 0.9)) == [(1.569, 2.0)]
    assert spans(events(0, 0, 0.9, duration=1.4)) == [(1.0, 1.4)]
    assert spans(events(0, 0, 0.9, duration=1.2)) == [(1.0, 1.2)]
    assert spans(events(0.9, duration=0.1)) == [(0.0, 0.1)]


def test_hysteresis_begins_at_the_threshold_and_goes_on_above_half_of_it():
    def length(*scores, high=0.5):
        (event,) = events(*scores, high=high)
        return event.end - event.start

    two = length(0, 0.5, 0.3, 0, 0, 0, 0, 0, 0)
    assert length(0, 0.5, 0.25, 0.3, 0, 0, 0, 0, 0) == pytest.approx(two + 0.5)
    # Below half for longer than a window: the middle of the window that crosses it.
    assert spans(events(0, 0.5, 0.24, 0.24, 0.24, 0.24, 0)) == [(1.085, 1.481)]
    assert events(0.3, 0.49, 0.3, 0) == []
    # What is below half of it, but not silent, is around the event, and at most a window long.
    assert spans(events(0, 0, 0.2, 0.5, 0.2, 0, 0)) == [(1.617, 2.383)]
    # Another threshold, another half.
    scores = (0, 0.8, 0.39, 0.8, 0)
    assert len(events(*scores, hop=1.0, high=0.8)) == 2
    assert len(events(*scores[:2], 0.41, *scores[3:], hop=1.0, high=0.8)) == 1


def test_the_score_is_the_largest_within():
    assert events(0, 0.6, 0.95, 0.7, 0)[0].score == 0.95


def test_where_sounds_take_turns_the_middle_of_the_window_counts():
    scores = np.repeat([[0.9, 0.1], [0.1, 0.9]], 6, axis=0)
    found = find_events(scores, np.arange(12) * 0.5, 1.0, LABELS, 0.5)
    # Between windows 5 and 6 a score of 0.5 is at 2.75 s, one of 0.25 at 2.906 s.
    assert [e.label for e in found] == ["cat", "dog"]
    assert spans(found) == [(0.0, 3.406), (3.25, 6.5)]


def test_what_overlaps_or_adjoins_at_a_fine_hop_is_one_event():
    # Middles of 0.5 s every 0.25 s: one low patch leaves no gap, two do.
    for gap, count in ((1, 1), (2, 2)):
        found = events(0, 0, 0.9, *[0] * gap, 0.9, 0, 0, hop=0.25)
        assert len(found) == count, gap


def test_patches_side_by_side_are_told_apart():
    assert spans(events(0, 0.9, 0, hop=1.0)) == [(1.238, 1.762)]


def test_without_merge_each_patch_is_a_row():
    found = events(0, 0.9, 0.6, 0.4, merge=False)
    assert found == [Event(0.5, 1.5, "cat", 0.9), Event(1.0, 2.0, "cat", 0.6)]


def test_smooth_drops_a_single_patch_and_keeps_two():
    assert events(0, 0, 0.9, 0, 0, smooth=True) == []
    assert spans(events(0, 0, 0.9, 0.8, 0, 0, smooth=True)) == spans(events(0, 0, 0.8, 0.8, 0, 0))
    assert spans(events(0.9, 0.9, 0.1, 0.9, 0.9, 0, 0, smooth=True)) == [(0.0, 2.431)]


def test_of_longer_windows_half_must_hear_it():
    """Means over three patches of 1 s: a sound from 4 to 6 s."""
    starts = np.arange(40) * 0.25
    single = ((starts + 1 > 4) & (starts < 6)).astype(float)
    means = np.array([single[i : i + 5].mean() for i in range(36)])[:, None]
    ends = starts[:36] + 2
    labels = ["cat", "background"]
    finder = EventFinder(labels, 0.7, 2.0, 0.25, patch=1.0)
    found = finder.push(ScoreBlock(starts[:36], np.hstack([means, 1 - means]), ends))
    assert spans(found) == [(pytest.approx(4, abs=0.1), pytest.approx(6, abs=0.1))]


def test_short_events_are_left_out_and_near_ones_are_one():
    scores = [0, 0.9, 0, 0, 0.8, 0.8, 0.8, 0, 0, 0, 0, 0.7, 0, 0]
    (a, b), (c, d), (e, f) = spans(events(*scores))
    assert (b - a, d - c, f - e) == pytest.approx((0.1, 0.856, 0.1), abs=1e-3)
    assert spans(events(*scores, min_duration=0.5)) == [(c, d)]
    assert spans(events(*scores, max_gap=c - b + 0.002)) == [(a, d), (e, f)]
    assert spans(events(*scores, max_gap=c - b - 0.002)) == [(a, b), (c, d), (e, f)]
    # Joined first: two short ones may be long together.
    assert spans(events(*scores, max_gap=e - d + 0.002, min_duration=f - a - 0.002)) == [(a, f)]
    assert events(*scores, max_gap=e - d + 0.002)[0].score == 0.9


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("option", "name"), [("min_duration", "minimum duration"), ("max_gap", "maximum gap")]
)
def test_times_that_are_none_are_refused(option, name, value):
    with pytest.raises(UnfreezeError, match=rf"^a {name} of .* s cannot be used: give a number of"):
        DetectOptions(**{option: value})
    with pytest.raises(UnfreezeError, match=rf"^a {name} is for merged events, and --no-merge"):
        DetectOptions(**{option: 1.0}, merge=False)


def test_thresholds_are_by_class():
    scores = np.array([[0.0, 0.0], [0.6, 0.6], [0.0, 0.0], [0.0, 0.0]])
    found = find_events(scores, np.arange(4) * 0.5, 1.0, LABELS, np.array([0.7, 0.5]))
    assert [e.label for e in found] == ["dog"]


def blocks(scores, starts, ends, cuts):
    parts = np.split(np.arange(len(starts)), sorted(min(c, len(starts)) for c in cuts))
    return [ScoreBlock(starts[p], scores[p], ends[p]) for p in parts]


def joined(found, gap):
    """Events of one class with those at most so far apart joined."""
    result = []
    for event in found:
        if result and event.start <= result[-1].end + gap + 1e-6:
            last = result.pop()
            event = Event(last.start, event.end, event.label, max(last.score, event.score))
        result.append(event)
    return result


@settings(deadline=None, max_examples=200)
@given(
    scores=st.lists(st.tuples(*[st.sampled_from([0.0, 0.02, 0.2, 0.3, 0.5, 0.9])] * 2),
                    min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6) | st.just(range(40)),
    hop=st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]),
    lost=st.floats(0, 0.9),
    background=st.booleans(),
    min_duration=st.sampled_from([0.0, 0.3, 0.7, 1.5]),
    max_gap=st.sampled_from([0.0, 0.1, 0.4, 1.1, 5.0]),
)  # fmt: skip
def test_events_obey_their_laws_however_the_scores_are_cut(
    scores, cuts, hop, lost, background, min_duration, max_gap
):
    table, labels = np.array(scores), LABELS
    if background:
        table = np.column_stack([table, np.clip(1 - table.sum(axis=1), 0, 1)])
        labels = (*LABELS, "background")
    starts = np.arange(len(table)) * hop
    duration = starts[-1] + 1.0 - lost * hop
    ends = np.minimum(starts + 1.0, duration)
    whole = find_events(table, starts, 1.0, labels, 0.5, duration=duration)
    times = {"min_duration": min_duration, "max_gap": max_gap}
    finder = EventFinder(labels, 0.5, 1.0, hop, **times)
    found, told = [], []
    for block in blocks(table, starts, ends, cuts):
        found += finder.push(block)
        told += finder.take_starts()
        # The start of an event comes before the event.
        assert {(e.start, e.label) for e in found} <= {(t.start, t.label) for t in told}
    found = sorted([*found, *finder.finish()], key=lambda e: (e.start, e.label))
    told += finder.take_starts()
    once = find_events(table, starts, 1.0, labels, 0.5, duration=duration, **times)
    assert found == once
    # Each start is told once, and each that is told is of an event.
    assert sorted((t.start, t.label) for t in told) == [(e.start, e.label) for e in found]
    for label, column in zip(labels, table.T, strict=True):
        mine = [e for e in whole if e.label == label]
        assert all(0 <= e.start < e.end <= duration + 1e-9 for e in mine)
        # Never two at once of one class, and something wherever a patch reaches 0.5.
        assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(mine))
        high = np.zeros(len(column), bool) if label == "background" else column >= 0.5
        assert bool(mine) == bool(high.any())
        assert max((e.score for e in mine), default=0) == max([0, *column[high]])
        # Within the windows that reach it, or a window's length from them.
        for i in np.flatnonzero(high):
            assert any(e.start < ends[i] + 1e-9 and starts[i] < e.end + 1e-9 for e in mine)
        near = joined(mine, max_gap) if max_gap else mine
        kept = [e for e in near if e.end - e.start >= min_duration - 1e-6]
        assert [e for e in found if e.label == label] == kept


def one_by_one(finder, scores, hop):
    """What a finder has to say after each patch: starts, and events."""
    for i, score in enumerate(scores):
        block = ScoreBlock(np.array([i * hop]), np.array([[score]]), np.array([i * hop + 1]))
        events = finder.push(block)
        yield finder.take_starts(), events


def test_a_start_is_given_with_the_first_patch_that_is_high():
    """A siren of 60 s is announced in its first second, and ends a minute later."""
    scores = [*[0] * 20, 0.3, *[0.9] * 480, 0.3, *[0] * 20]
    said = list(one_by_one(EventFinder(["cat"], 0.5, 1.0, 0.125), scores, 0.125))
    begun = [(i, starts) for i, (starts, _) in enumerate(said) if starts]
    over = [(i, events) for i, (_, events) in enumerate(said) if events]
    assert [i for i, _ in begun] == [21]
    assert begun[0][1] == [EventStart(pytest.approx(3.325, abs=0.01), "cat", 0.9)]
    # When nothing can be added any more: half a window.
    assert [i for i, _ in over] == [505]
    assert over[0][1][0].start == begun[0][1][0].start
    assert over[0][1][0].end - over[0][1][0].start == pytest.approx(59.7, abs=0.3)


def test_with_a_minimum_a_start_waits_for_it_and_with_a_gap_an_end():
    scores = [*[0] * 8, *[0.9] * 24, *[0] * 40]

    def moments(**times):
        finder = EventFinder(["cat"], 0.5, 1.0, 0.125, **times)
        said = list(one_by_one(finder, scores, 0.125))
        return [next(i for i, what in enumerate(said) if what[k]) for k in (0, 1)]

    begun, over = moments()
    assert begun == 8
    # The event begins at 1.8 s: patch 23 is the first that begins a second later.
    assert moments(min_duration=1.0) == [23, over]
    later = moments(max_gap=2.0)
    assert later[0] == begun
    assert over + 12 <= later[1] <= over + 24
    # One that still waits when the recording is over is as it was.
    waits = EventFinder(["cat"], 0.5, 1.0, 0.125, max_gap=100.0)
    assert not any(events for _, events in one_by_one(waits, scores, 0.125))
    column = np.array(scores)[:, None]
    assert waits.finish() == find_events(column, np.arange(72) * 0.125, 1.0, ["cat"], 0.5)
    none = EventFinder(["cat"], 0.5, 1.0, 0.125, min_duration=3.5)
    assert not any(starts or events for starts, events in one_by_one(none, scores, 0.125))
    assert none.finish() == []
    assert none.take_starts() == []


@pytest.mark.parametrize("rows", [0, 1])
def test_a_recording_of_no_or_one_patch(rows):
    assert len(events(*[0.9] * rows)) == rows
