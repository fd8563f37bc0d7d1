"""Found events against true ones: numbers by hand, laws, and another program's numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfreeze.detection.event_scoring import (
    RULES,
    Rules,
    Truth,
    alarms_on_others,
    as_spans,
    count,
)
from unfreeze.errors import UnfreezeError
from unfreeze.pipeline.event_rates import FOUND, HIT, RIGHT, TRUE, rates

try:
    import mir_eval
except ImportError:
    mir_eval = None

SECONDS = 60.0


def counted(sounds, found, *, seconds=SECONDS, others=(), unsure=(), known=None, **rules):
    truth = Truth(
        as_spans(sounds),
        as_spans(others),
        as_spans(unsure),
        None if known is None else as_spans(known),
    )
    rows = count(truth, as_spans(found), seconds, Rules(**rules)).tolist()
    return dict(zip(RULES, rows, strict=True))


TWO = [(1.0, 3.0), (10.0, 11.0)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], {"overlap": [2, 0, 0, 0], "iou": [2, 0, 0, 0], "segments": [3, 0, 0, 0]}),
        (TWO, {key: [2, 2, 2, 2] for key in ("overlap", "iou", "onset")}),
        # Two events for one: both right by overlap, one of them by the others.
        (
            [(1.0, 2.1), (2.2, 3.0)],
            {"overlap": [2, 2, 1, 2], "iou": [2, 2, 1, 1], "onset": [2, 2, 1, 1]},
        ),
        # 1.4 of 2 s in common, but 0.6 s late; seconds 1 and 2 are both touched.
        (
            [(1.6, 3.0)],
            {"overlap": [2, 1, 1, 1], "iou": [2, 1, 1, 1], "onset": [2, 1, 0, 0],
             "segments": [3, 2, 2, 2]},
        ),
        # One event over both fills each, and sounds fill 3 of its 20 s, more than a tenth.
        ([(0.0, 20.0)], {"overlap": [2, 1, 2, 1], "iou": [2, 1, 0, 0], "segments": [3, 20, 3, 3]}),
        # Of 31 s it is less than a tenth: a false alarm, and both are missed.
        ([(0.0, 31.0)], {"overlap": [2, 1, 0, 0], "segments": [3, 31, 3, 3]}),
        # A tenth of the sound: found; less: missed, though the event is right.
        ([(2.8, 3.1)], {"overlap": [2, 1, 1, 1], "iou": [2, 1, 0, 0]}),
        ([(2.85, 3.1)], {"overlap": [2, 1, 0, 1]}),
        ([(5.0, 6.0)], {"overlap": [2, 1, 0, 0], "segments": [3, 1, 0, 0]}),
    ],
)  # fmt: skip
def test_counts_by_each_rule(found, expected):
    counts = counted(TWO, found)
    assert {rule: counts[rule] for rule in expected} == expected


def test_pairs_are_chosen_so_that_there_are_as_many_as_possible():
    # By start both fit the first sound; only the first one fits the second, too.
    assert counted([(0.0, 1.0), (0.6, 1.6)], [(0.3, 1.0), (0.2, 1.0)])["onset"] == [2, 2, 2, 2]
    # Whoever takes the nearest first leaves the other without a partner.
    assert counted([(1.0, 2.0), (1.4, 9.0)], [(1.2, 2.0), (1.8, 9.0)])["onset"] == [2, 2, 2, 2]
    assert counted([(0.0, 4.0)], [(0.0, 2.0), (2.0, 4.0)])["iou"] == [1, 2, 1, 1]


def test_the_numbers_of_the_rules_are_used():
    late = [(1.9, 3.0)]
    assert counted(TWO, late, collar=0.9)["onset"][HIT] == 1
    assert counted(TWO, late, collar=0.89)["onset"][HIT] == 0
    assert counted(TWO, late, iou=0.55)["iou"][HIT] == 1
    assert counted(TWO, late, iou=0.56)["iou"][HIT] == 0
    assert counted(TWO, late, share=0.55)["overlap"][HIT] == 1
    assert counted(TWO, late, share=0.56)["overlap"] == [2, 1, 0, 1]
    assert counted(TWO, [(2.9999, 9.0)], share=0.0)["overlap"] == [2, 1, 1, 1]
    assert counted(TWO, [(3.0, 9.0)], share=0.0)["overlap"] == [2, 1, 0, 0]
    assert counted(TWO, TWO, segment=0.5)["segments"] == [6, 6, 6, 6]
    # The last segment of a recording may be shorter.
    assert counted([(59.0, 60.5)], [], seconds=60.5, segment=10.0)["segments"] == [2, 0, 0, 0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"share": 1.1}, "share is 1.1: give one from 0 to 1"),
        ({"iou": 0}, "iou is 0: give one above 0 and at most 1"),
        ({"collar": -1}, "collar is -1: give one of 0 seconds or more"),
        ({"collar": float("nan")}, "collar is nan"),
        ({"segment": 0}, "segment is 0: give one of more than 0 seconds"),
        ({"segment": float("inf")}, "segment is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    with pytest.raises(UnfreezeError, match=message):
        Rules(**numbers)


def test_the_rules_are_said_with_their_numbers():
    words = Rules(share=0.2, iou=0.6, collar=0.3, segment=2).in_words()
    assert list(words) == list(RULES)
    for rule, number in zip(RULES, ("20%", "60%", "0.3 s", "each 2 s"), strict=True):
        assert number in words[rule]
    assert "any part of it" in Rules(share=0).in_words()["overlap"]


def test_where_nobody_knows_nothing_is_wrong():
    found = [(1.0, 3.0), (20.0, 21.0), (40.0, 41.0)]
    assert counted(TWO, found)["overlap"] == [2, 3, 1, 1]
    # A dog? from 20 to 25 s.
    assert counted(TWO, found, unsure=[(20.5, 25.0)])["overlap"] == [2, 2, 1, 1]
    assert counted(TWO, found, unsure=[(20.5, 25.0)])["segments"] == [3, 3, 2, 2]
    # Only to 30 s is it annotated: what is found behind that is not counted.
    part = counted(TWO, found, known=[(0.0, 30.0)])
    assert [part[rule] for rule in RULES] == [[2, 2, 1, 1]] * 3 + [[3, 3, 2, 2]]
    # Half of an event must be annotated.
    assert counted([], [(9.0, 11.0)], known=[(0, 10.0)])["iou"] == [0, 1, 0, 0]
    assert counted([], [(9.0, 11.1)], known=[(0, 10.0)])["iou"] == [0, 0, 0, 0]


def test_false_alarms_on_sounds_of_other_classes_are_told_apart():
    others = as_spans([(5.0, 6.0), (5.5, 7.0)])
    truth = Truth(as_spans(TWO), others)
    found = as_spans([(1.0, 2.0), (6.0, 8.0), (20.0, 21.0)])
    assert alarms_on_others(truth, found, 0.1) == 1
    # It lies on the other sound with half of its length.
    assert alarms_on_others(truth, found, 0.51) == 0


# Hundredths of a second, so that shifted times are as exact as the others.
times = st.integers(0, 3000)
stretches = st.lists(
    st.tuples(times, st.integers(1, 500)).map(lambda x: (x[0] / 100, (x[0] + x[1]) / 100)),
    max_size=12,
)


@given(stretches.filter(len))
def test_a_perfect_detector_is_perfect(sounds):
    for row in counted(sounds, sounds).values():
        assert rates(np.array(row)) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


@given(stretches, stretches)
def test_counts_are_possible(sounds, found):
    for rule, (true, number, hit, right) in counted(sounds, found).items():
        assert 0 <= hit <= true
        assert 0 <= right <= number
        assert rule == "overlap" or hit == right


@given(stretches, stretches, st.integers(0, 20))
def test_moving_all_by_whole_segments_leaves_the_scores(sounds, found, by):
    moved = [[(start + by, end + by) for start, end in spans] for spans in (sounds, found)]
    assert counted(sounds, found) == counted(*moved)


@given(stretches, stretches)
def test_a_false_alarm_never_raises_precision_and_leaves_recall(sounds, found):
    before, after = counted(sounds, found), counted(sounds, [*found, (45.0, 46.0)])
    for rule in RULES:
        old, new = (rates(np.array(rows[rule])) for rows in (before, after))
        assert new["recall"] == old["recall"]
        assert new["precision"] <= (1.0 if old["precision"] is None else old["precision"])
        assert after[rule][FOUND] == before[rule][FOUND] + 1


@given(stretches, stretches)
def test_a_milder_number_never_finds_less(sounds, found):
    strict = counted(sounds, found, share=0.5, iou=0.7, collar=0.2)
    mild = counted(sounds, found, share=0.5, iou=0.3, collar=0.7)
    for rule in ("iou", "onset"):
        assert mild[rule][HIT] >= strict[rule][HIT]
    assert counted(sounds, found, share=0.0)["overlap"][HIT] >= mild["overlap"][HIT]


@given(stretches, stretches)
def test_truth_and_found_change_places_with_recall_and_precision(sounds, found):
    one, other = counted(sounds, found), counted(found, sounds)
    for rule in ("iou", "onset", "segments"):
        assert one[rule] == [other[rule][place] for place in (FOUND, TRUE, RIGHT, HIT)]


@pytest.mark.skipif(mir_eval is None, reason="mir_eval, of the extra test, is not installed")
@given(stretches.filter(len), stretches.filter(len))
def test_onsets_are_matched_as_mir_eval_matches_them(sounds, found):
    pairs = mir_eval.transcription.match_note_onsets(
        np.array(sounds), np.array(found), onset_tolerance=0.5
    )
    assert counted(sounds, found)["onset"][HIT] == len(pairs)
