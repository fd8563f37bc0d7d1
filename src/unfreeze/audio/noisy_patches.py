"""Patches of clips, the same in noise, and background: made when they are read.

Nothing is stored: a copy in noise is two stored patches, one of a clip and one of background,
whose powers are added. Which ones, and how loud, is drawn once, so each epoch and each run
with the same seed reads the same.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from unfreeze.audio.front_ends import patches_of_all
from unfreeze.audio.made_background import KINDS, RATE, make_background
from unfreeze.audio.patches import PatchView
from unfreeze.backbones.frontend import SAMPLES, FrontEnd, LogScale

#: Length of a sound of background.
SECONDS = 2.88
# Patches of copies at most: of very many recordings there is no need for more.
_MOST = 100_000
# How far a clip is above the noise, in dB, and decibels of amplitude in a natural-log unit.
_ABOVE = (0.0, 30.0)
_NEPER = 20 / np.log(10)
# The level of a copy, in natural-log units of amplitude, against the clip's own.
_LEVEL = (-2.3, 0.5)
# Values that are read at once: 1,024 patches of YAMNet.
_READ = 1024 * 96 * 64
# Noise that clips are heard in: what lasts.
_STEADY = ("coloured noise", "wind", "hiss", "rain", "hum", "clicks")


@dataclass(frozen=True, eq=False)
class Bank:
    """Patches of computed background.

    Attributes:
        patches: (n, *patch_shape) float32.
        clip: (n,) the sound that each is of.
        kind: (sounds,) its kind, a number in `kinds`.
        kinds: their names.
    """

    patches: np.ndarray
    clip: np.ndarray
    kind: np.ndarray
    kinds: tuple[str, ...]

    def without(self, kinds: Sequence[str]) -> "Bank":
        """The same, less some kinds."""
        left = tuple(kind for kind in self.kinds if kind not in kinds)
        place = np.array([left.index(k) if k in left else -1 for k in self.kinds])
        sounds = place[self.kind] >= 0
        rows = sounds[self.clip]
        number = np.cumsum(sounds) - 1
        kind = place[self.kind[sounds]]
        return Bank(self.patches[rows], number[self.clip[rows]], kind, left)

    def fingerprint(self) -> str:
        """A digest of the patches."""
        return hashlib.sha256(np.ascontiguousarray(self.patches).tobytes()).hexdigest()


def make_bank(front_end: FrontEnd, sounds: int, rng: np.random.Generator) -> Bank:
    """Make background of each kind.

    Args:
        front_end: of the network.
        sounds: of each kind.
        rng: of what is drawn.
    """
    sounds_made, kind = [], list[int]()
    rate = front_end.sample_rate / front_end.slow_down
    for number, name in enumerate(KINDS):
        for _ in range(sounds):
            sound = make_background(name, SECONDS, rng)
            if rate != RATE:
                sound = soxr.resample(sound, RATE, rate)
            sounds_made.append(sound)
            kind.append(number)
    patches = patches_of_all(sounds_made, front_end)
    clip = np.repeat(np.arange(len(kind)), [len(part) for part in patches])
    return Bank(np.concatenate(patches), clip, np.array(kind), tuple(KINDS))


class NoisyView:
    """Patches of clips, the same in noise, and background: an array that is made when read.

    Args:
        clean: the clips' patches.
        bank: the background.
        rng: of which noise is how loud behind which clip.
        front_end: of the network; says what the values of patches are.
        clips: number of the manifest's clips; copies and background are numbered from there.
        copies: of each clip; 0 where patches are a network's numbers, which do not add up.

    Attributes:
        shape: (patches, *patch_shape).
        dtype: float32.
        clip: (patches,) int64, each patch's clip.
        source: the clip that each further clip is a copy of, from number `clips` on; -1 for
            background.
        kind: the kind of background that each further clip is, a number in the bank's kinds;
            -1 for copies.
        fingerprint: a digest of the content.
    """

    def __init__(
        self,
        clean: PatchView,
        bank: Bank,
        rng: np.random.Generator,
        front_end: FrontEnd,
        clips: int,
        copies: int,
    ) -> None:
        self._clean, self._bank, self._front_end = clean, bank, front_end
        copies = min(copies, _MOST // max(len(clean), 1))
        ids, place = np.unique(clean.clip, return_inverse=True)
        amount = len(ids) * copies
        steady = [bank.kinds.index(k) for k in _STEADY if k in bank.kinds] or [0]
        of_kind = [np.flatnonzero(bank.kind[bank.clip] == k) for k in steady]
        kinds = rng.integers(len(steady), size=amount)
        above = rng.uniform(*_ABOVE, size=amount) / _NEPER
        level = rng.uniform(*_LEVEL, size=amount)
        number = (place[None] + np.arange(copies)[:, None] * len(ids)).reshape(-1)
        draw = rng.uniform(size=len(number))
        counts = np.array([len(rows) for rows in of_kind])
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        among = first[kinds[number]] + (draw * counts[kinds[number]]).astype(np.int64)
        self._noise = np.concatenate(of_kind)[among]
        self._own = np.tile(np.arange(len(clean)), copies)
        self._above, self._level = above[number], level[number]
        # Without copies there is no need to read all clips.
        at_once = max(_READ // math.prod(clean.shape[1:]), 1)
        read = range(0, len(clean) if copies else 0, at_once)
        power = [self._power(clean[np.arange(at, min(at + at_once, len(clean)))]) for at in read]
        if power:
            loud = np.bincount(place, np.concatenate(power)) / np.bincount(place)
            self._loud = _log(loud[place][self._own])
            self._quiet = _log(self._power(bank.patches)[self._noise])
        self.source = np.concatenate([np.tile(ids, copies), np.full(len(bank.kind), -1)])
        self.kind = np.concatenate([np.full(amount, -1), bank.kind])
        own = clean.clip, clips + number, clips + amount + bank.clip
        self.clip = np.concatenate(own).astype(np.int64)
        self.shape = (len(self.clip), *clean.shape[1:])
        self.ndim, self.dtype = len(self.shape), clean.dtype
        digest = hashlib.sha256(f"{clean.fingerprint}{bank.fingerprint()}".encode())
        for part in (self._noise, self._above, self._level):
            digest.update(np.ascontiguousarray(part).tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Read patches, as from a `PatchView`."""
        rows = np.arange(len(self))[index]
        if np.ndim(rows) == 0:
            one: np.ndarray = self[np.array([rows])][0]
            return one
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        clean, mixed = len(self._clean), len(self._clean) + len(self._own)
        plain = rows < clean
        noisy = ~plain & (rows < mixed)
        rest = rows >= mixed
        if plain.any():
            found[plain] = self._clean[rows[plain]]
        if noisy.any():
            found[noisy] = self._mixed(rows[noisy] - clean)
        found[rest] = self._bank.patches[rows[rest] - mixed]
        return found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Patches are made when they are read: an array is always a copy.")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _mixed(self, rows: np.ndarray) -> np.ndarray:
        """Powers of sound and noise add up, as those of sounds that know nothing of each other."""
        gain = np.exp(self._loud - self._quiet - self._above)[rows].astype(np.float32)
        sound = self._magnitude(self._clean[self._own[rows]])
        noise = self._magnitude(self._bank.patches[self._noise[rows]])
        noise *= _beside(gain, noise)
        level = np.exp(self._level)[rows].astype(np.float32)
        if self._front_end.holds == SAMPLES:
            return np.asarray((sound + noise) * _beside(level, noise))
        if self._front_end.powers:
            # Samples are scaled by their range, which grows with the noise, about so.
            level = 1 / np.sqrt(1 + gain**2)
        return self._values(np.sqrt(sound**2 + noise**2) * _beside(level, noise))

    def _magnitude(self, patches: np.ndarray) -> np.ndarray:
        """Mel magnitudes from what patches hold; samples as they are."""
        front = self._front_end
        if front.holds == SAMPLES:
            return patches
        if front.powers:
            return np.asarray(patches ** (0.5 / np.array(front.powers, np.float32)))
        how = front.logs
        logs = patches if how == LogScale() else patches * how.divisor - how.shift
        found = np.maximum(np.exp(logs) - np.float32(front.log_offset), 0)
        return np.asarray(found if how.exponent == 1 else found ** (1 / how.exponent))

    def _values(self, magnitudes: np.ndarray) -> np.ndarray:
        """What patches hold, from mel magnitudes."""
        front = self._front_end
        if front.powers:
            return np.asarray(magnitudes ** (2 * np.array(front.powers, np.float32)))
        how = front.logs
        raised = magnitudes if how.exponent == 1 else magnitudes**how.exponent
        logs = np.log(raised + np.float32(front.log_offset))
        return np.asarray(logs if how == LogScale() else (logs + how.shift) / how.divisor)

    def _power(self, patches: np.ndarray) -> np.ndarray:
        """(n,) mean square of each patch's magnitudes."""
        axes = tuple(range(1, patches.ndim))
        squares: np.ndarray = (self._magnitude(patches) ** 2).mean(axis=axes, dtype=np.float64)
        return squares


def _beside(values: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """(n,) so that each counts for a whole patch of (n, ...)."""
    return values.reshape(-1, *[1] * (patches.ndim - 1))


def _log(power: np.ndarray) -> np.ndarray:
    """The natural logarithm of amplitudes, from powers."""
    logs: np.ndarray = np.log(np.maximum(power, 1e-12)) / 2
    return logs
