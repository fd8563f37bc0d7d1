"""How well found events agree with the true ones, by the rules of `unfreeze evaluate`.

Three of them, from mild to strict (`unfreeze.detection.event_scoring`): `overlap`, here of any
length, which asks for alarms and not for times; `iou`, at least half of what both cover in
common; `onset`, starts at most `COLLAR` apart.
"""

from collections import defaultdict

import numpy as np

from unfreeze.detection.event_scoring import (
    RULES,
    Rules,
    Truth,
    alarms_on_others,
    as_spans,
    count,
)
from unfreeze.pipeline.event_rates import FOUND, HIT, RIGHT, TRUE

COLLAR = 0.5
_RULES = Rules(share=0.0, iou=0.5, collar=COLLAR)


def event_scores(truth, found):
    """Recall and precision by each rule.

    Args:
        truth: (start, end, label) of each true event.
        found: the same of each event found.
    """
    # Segments are not asked for, so the length does not matter.
    counts = sum(
        (count(own, spans, 1.0, _RULES) for own, spans in _by_class(truth, found)),
        np.zeros((len(RULES), 4), int),
    )
    return {
        rule: {
            "recall": float(counts[place, HIT] / max(counts[place, TRUE], 1)),
            "precision": float(counts[place, RIGHT] / max(counts[place, FOUND], 1)),
        }
        for place, rule in enumerate(RULES)
        if rule != "segments"
    }


def false_alarms(truth, found):
    """Where the events lie that overlap no true one of their class.

    Returns:
        How many overlap a true event of another class, and how many none at all.
    """
    confused = wrong = 0
    for own, spans in _by_class(truth, found):
        overlap = count(own, spans, 1.0, _RULES)[RULES.index("overlap")]
        wrong += int(overlap[FOUND] - overlap[RIGHT])
        confused += alarms_on_others(own, spans, _RULES.share)
    return confused, wrong - confused


def _by_class(truth, found):
    sounds, events = defaultdict(list), defaultdict(list)
    for start, end, label in truth:
        sounds[label].append((start, end))
    for start, end, label in found:
        events[label].append((start, end))
    for label in sorted({*sounds, *events}):
        others = [span for other, own in sounds.items() if other != label for span in own]
        yield Truth(as_spans(sounds[label]), as_spans(others)), as_spans(events[label])
