"""How well found events agree with the true ones: three rules, from mild to strict.

- `overlap`: an event is right if it overlaps a true one of its class at all, a
  true one is found if an event of its class overlaps it. Several events for one
  true one are all right: this asks for alarms, not for times.
- `iou`: pairs of one true event and one found, of one class, whose overlap is at
  least half of what they cover together; each in one pair at most.
- `onset`: such pairs whose starts differ by at most `COLLAR`. As the event-based
  scores of sed_eval (A. Mesaros et al., "Metrics for Polyphonic Sound Event
  Detection", Applied Sciences 6, 2016), ends left out; its collar is 0.2 s, too
  short for patches every 0.48 s.

Pairs are chosen so that there are as many as possible.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

COLLAR = 0.5
RULES = ("overlap", "iou", "onset")


def event_scores(truth, found):
    """Recall and precision by each rule.

    Args:
        truth: (start, end, label) of each true event.
        found: the same of each event found.
    """
    fits = {rule: np.zeros((len(truth), len(found)), bool) for rule in RULES}
    for i, (start, end, label) in enumerate(truth):
        for j, (begin, stop, name) in enumerate(found):
            if name != label:
                continue
            common = min(end, stop) - max(start, begin)
            fits["overlap"][i, j] = common > 0
            fits["iou"][i, j] = common >= 0.5 * (max(end, stop) - min(start, begin))
            fits["onset"][i, j] = abs(start - begin) <= COLLAR
    scores = {}
    for rule, table in fits.items():
        hit, right = table.any(axis=1).sum(), table.any(axis=0).sum()
        if rule != "overlap":
            pairs = maximum_bipartite_matching(scipy.sparse.csr_array(table), perm_type="column")
            hit = right = (pairs >= 0).sum()
        scores[rule] = {
            "recall": float(hit / max(len(truth), 1)),
            "precision": float(right / max(len(found), 1)),
        }
    return scores


def false_alarms(truth, found):
    """Where the events lie that overlap no true one of their class.

    Returns:
        How many overlap a true event of another class, and how many none at all.
    """
    confused = nothing = 0
    for begin, stop, name in found:
        near = [label for start, end, label in truth if start < stop and end > begin]
        if name not in near:
            confused, nothing = confused + bool(near), nothing + (not near)
    return confused, nothing
