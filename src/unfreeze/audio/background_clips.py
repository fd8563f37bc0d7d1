"""Cuts recordings of silent classes into short clips, and takes no more than needed.

Background is easy to record for hours and would swamp the classes: when in doubt, a
softmax guesses the class that has a hundred times the patches. So each part of the
split takes at most `SHARE` times the patches of its largest class (a part that is
tested, at most `SHARE` times that class's clips too), as pieces as long as a usual clip,
spread over all recordings and over the length of each. Every recording gives one piece
before any gives two, so that a few short sounds are not crowded out by hours of rain. A
piece is a clip of its own: it is scored alone, and its group is the recording.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from unfreeze.audio.entries import is_quiet
from unfreeze.audio.manifest import Manifest, heard_table
from unfreeze.audio.patches import PatchView
from unfreeze.audio.split import PARTS, Split
from unfreeze.backbones.frontend import FrontEnd

# Patches in a piece: with YAMNet's front end 2.88 s.
PIECE = 5
# Patches of silent classes, at most, for each patch of the largest class of a part.
SHARE = 2.0


@dataclass(frozen=True, eq=False)
class Pieces:
    """A data set whose silent recordings are cut into clips.

    Attributes:
        manifest: the earlier clips keep their numbers; pieces follow.
        split: the same parts, of pieces.
        parts: the patches of each part, by its name; further parts too.
        notes: what was left out, one sentence each.
    """

    manifest: Manifest
    split: Split
    parts: dict[str, PatchView]
    notes: tuple[str, ...]


def cut_quiet(
    manifest: Manifest, split: Split, parts: Mapping[str, PatchView], front_end: FrontEnd
) -> Pieces:
    """Cut the recordings of silent classes into pieces, and choose among them.

    Args:
        manifest: the clips, one file each.
        split: its parts.
        parts: the patches of each, by name; may hold further ones.
        front_end: decides how long a piece is.

    Returns:
        The data set with pieces; unchanged where no class is silent.
    """
    quiet = np.array([is_quiet(clip.label) for clip in manifest.clips])
    if not quiet.any():
        return Pieces(manifest, split, dict(parts), ())
    member = heard_table(manifest) > 0
    clips, chosen, views = list(manifest.clips), dict[str, np.ndarray](), dict[str, PatchView]()
    used = present = 0
    for name, view in parts.items():
        loud = np.flatnonzero(~quiet[view.clip])
        largest = member[view.clip[loud]].sum(axis=0).max() if len(loud) else PIECE
        # Where clips are scored, many easy ones of one class would flatter the whole. What
        # chooses epochs must see as much background as what trains, or it stops too late.
        scored = name not in ("train", "validation")
        most = _most_clips(member, view.clip[loud]) if scored else len(view)
        spans = _choose(view.clip, np.flatnonzero(quiet[view.clip]), round(SHARE * largest), most)
        numbers = view.clip.copy()
        begins = dict(
            zip(*(x.tolist() for x in np.unique(view.clip, return_index=True)), strict=True)
        )
        for first, end, alone in spans:
            clip = manifest.clips[view.clip[first]]
            if not alone:
                hop = front_end.steps * front_end.step
                samples = front_end.patch_samples + (end - first - 1) * hop
                seconds = samples / front_end.sample_rate
                numbers[first:end] = len(clips)
                skipped = first - begins[int(view.clip[first])]
                start = (clip.start or 0.0) + skipped * hop / front_end.sample_rate
                place = {"seconds": seconds, "start": start, "end": start + seconds}
                clips.append(replace(clip, content=f"{clip.content}+{first}", **place))
        kept = [np.arange(first, end) for first, end, _ in spans]
        order = np.sort(np.concatenate([loud, *kept]))
        views[name] = view.take(order, numbers[order])
        chosen[name] = np.unique(numbers[order])
        used, present = used + len(order) - len(loud), present + len(view) - len(loud)
    notes = []
    if used < present:
        notes.append(
            f"Of {present:,} patches of background {used:,} are used, spread over all recordings: "
            f"at most {SHARE:g} times as many as the largest class has."
        )
    divided = Split(*(chosen[name] for name in PARTS))
    return Pieces(replace(manifest, clips=tuple(clips)), divided, views, tuple(notes))


def _most_clips(member: np.ndarray, patch_clip: np.ndarray) -> int:
    counts = member[np.unique(patch_clip)].sum(axis=0)
    return round(SHARE * counts.max()) if counts.any() else 1


def _choose(
    patch_clip: np.ndarray, quiet: np.ndarray, budget: int, most: int
) -> list[tuple[int, int, bool]]:
    """Return at most `most` pieces of `budget` patches in all.

    Each is its first patch, its end, and whether it is its whole recording.
    """
    if not len(quiet):
        return []
    edges = np.flatnonzero(np.diff(patch_clip[quiet])) + 1
    recordings = np.split(quiet, edges)
    counts = np.array([max(len(patches) // PIECE, 1) for patches in recordings])
    # The order of names must not decide which recordings give the last pieces.
    order = np.random.default_rng(0).permutation(len(recordings))
    taken = np.zeros(len(recordings), dtype=int)
    spent = 0
    while spent < budget and taken.sum() < most and (taken < counts).any():
        for number in order[(taken < counts)[order]]:
            if spent >= budget or taken.sum() >= most:
                break
            taken[number] += 1
            spent += PIECE if counts[number] > 1 else len(recordings[number])
    spans = []
    for patches, count, wanted in zip(recordings, counts, taken, strict=True):
        for piece in ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(int):
            first = int(patches[0]) + int(piece) * PIECE
            # What is left over after the last piece is not used.
            size = PIECE if count > 1 else len(patches)
            spans.append((first, first + size, bool(count == 1)))
    return spans
