"""What was said of each clip of a pool, and what follows from that for a class.

The store has stretches of recordings; a pool has clips. They are the same until an index is made
again from a recording that became longer or shorter: then a stretch may lie in several clips.
"""

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.review.clip_pool import Pool, overlapping
from unfreeze.review.label_store import NO, OTHER, UNDONE, UNSURE, Decision


class ClipDecisions:
    """The decisions that count, by clip.

    Attributes:
        by_clip: the decision on each clip that has one.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.by_clip: dict[int, Decision] = {}
        # The classes that were said not to be heard: of another class may be asked later.
        self._not_heard: dict[int, set[str]] = {}

    def add(self, decision: Decision) -> None:
        """Take in a decision: one that counts, or one of the history, in the order of time."""
        for clip in self._clips_of(decision):
            not_heard = self._not_heard.setdefault(clip, set())
            not_heard.discard(decision.asked)
            if decision.answer == NO and decision.ended_by != UNDONE:
                not_heard.add(decision.asked)
            if decision.ended_at is None:
                self.by_clip[clip] = decision

    def take_back(self, decision: Decision) -> list[int]:
        """Forget a decision; return the clips that it was about."""
        clips = [clip for clip, one in self.by_clip.items() if one.number == decision.number]
        for clip in clips:
            del self.by_clip[clip]
            self._not_heard[clip].discard(decision.asked)
        return clips

    def decisions(self) -> list[Decision]:
        """Each once, in the order of time."""
        own = {one.number: one for one in self.by_clip.values()}
        return [own[number] for number in sorted(own)]

    def of_class(self, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(clips,) bool each: the class is heard; it is not; it cannot be said."""
        found, not_found, unsure = (np.zeros(len(self._pool), bool) for _ in range(3))
        for clip, one in self.by_clip.items():
            if one.label == label:
                found[clip] = True
            elif one.answer == UNSURE and one.asked == label:
                unsure[clip] = True
            elif one.answer in (NO, OTHER) and one.asked == label:
                not_found[clip] = True
            elif one.label is not None and (not self._pool.several or is_quiet(one.label)):
                # Of one class per clip, or of none: so not of this one.
                not_found[clip] = True
            elif label in self._not_heard[clip]:
                not_found[clip] = True
            elif one.label is not None:
                # Another class is heard. A clip has one answer: to ask would be to replace it.
                unsure[clip] = True
        return found, not_found, unsure

    def _clips_of(self, decision: Decision) -> list[int]:
        place = decision.recording, decision.start, decision.end
        return list(overlapping(self._pool, *place))
