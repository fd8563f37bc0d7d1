"""Windows over stored log-mel frames: patches without a copy of their overlap.

Patches are read from the file on demand, not mapped into memory: reading all of
a large store does not make the process larger, and a file that is truncated while
it is in use gives an error, not a crash. The operating system's cache still makes
it fast.
"""

import hashlib
from pathlib import Path

import numpy as np

from unfreeze.core.array_files import RowReader
from unfreeze.errors import show

FLOAT = np.dtype("<f4")


class FrameFile:
    """Log-mel frames in a file of raw float32, read by row numbers.

    Args:
        path: the file; it stays open while the object lives.
        bands: values in a row.

    Threads may read at once.
    """

    def __init__(self, path: Path, bands: int) -> None:
        self.path, self.bands = path, bands
        self._reader = RowReader(
            path,
            f"{show(path)} ends too early: the feature store is damaged. Delete its folder and "
            "run again.",
        )

    def windows(self, starts: np.ndarray, rows: int) -> np.ndarray:
        """Read windows of consecutive rows.

        Args:
            starts: (n,) int, the first row of each window.
            rows: in each window.

        Returns:
            (n, rows, bands) float32, always a copy.

        Raises:
            RunError: the file ends before a window does.
        """
        result = np.empty((len(starts), rows, self.bands), dtype=FLOAT)
        self._reader.spans(result, starts * (self.bands * FLOAT.itemsize))
        return result


class FrameArray:
    """Frames in memory, read as those of a `FrameFile`.

    Args:
        frames: (frames, bands) float32.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self._frames, self.bands = frames, frames.shape[1]

    def windows(self, starts: np.ndarray, rows: int) -> np.ndarray:
        """Windows of consecutive rows, (n, rows, bands): always a copy."""
        found: np.ndarray = self._frames[starts[:, None] + np.arange(rows)]
        return found


class PatchView:
    """The patches of some clips, as an array that is read when indexed.

    Attributes:
        shape: (patches, *patch_shape) of the front end: (patches, patch_frames, bands).
        dtype: float32.
        clip: (patches,) int64, each patch's clip, as a number in the manifest.
        fingerprint: SHA-256 over the front end, the clips' contents and order.
    """

    def __init__(
        self,
        frames: FrameFile | FrameArray,
        starts: np.ndarray,
        clip: np.ndarray,
        patch_frames: int,
        fingerprint: str,
        patch_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._frames, self._starts, self._rows = frames, starts, patch_frames
        self.clip = clip
        shape = patch_shape or (patch_frames, frames.bands)
        self.shape: tuple[int, ...] = (len(starts), *shape)
        self.ndim = len(self.shape)
        self.dtype = FLOAT
        digest = hashlib.sha256(fingerprint.encode("ascii"))
        digest.update(np.ascontiguousarray(starts, dtype="<i8").tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Read patches.

        Args:
            index: one number, a slice, or an int or bool array of one axis.

        Returns:
            (n, *patch_shape) float32, or one patch for one number.

        Raises:
            IndexError: as numpy raises it.
        """
        starts = self._starts[index]
        if np.ndim(starts) == 0:
            one: np.ndarray = self._read(np.asarray([starts]))[0]
            return one
        return self._read(starts)

    def _read(self, starts: np.ndarray) -> np.ndarray:
        windows = self._frames.windows(starts, self._rows)
        return windows.reshape(len(starts), *self.shape[1:])

    def take(self, numbers: np.ndarray, clip: np.ndarray) -> "PatchView":
        """Return a view of some of the patches.

        Args:
            numbers: (n,) int, which patches, in the order wanted.
            clip: (n,) int, the clip of each.
        """
        starts, shape = self._starts[numbers], self.shape[1:]
        own = np.asarray(clip)
        return PatchView(self._frames, starts, own, self._rows, self.fingerprint, shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Patches are read from a file: an array of them is always a copy.")
        return self[:].astype(dtype or self.dtype, copy=False)


def repeat_by_clip(values: np.ndarray, patch_clip: np.ndarray) -> np.ndarray:
    """Give each patch the value of its clip, such as its label.

    Args:
        values: (clips, ...) one row per clip of the manifest.
        patch_clip: (patches,) int, each patch's clip; `PatchView.clip`.

    Returns:
        (patches, ...) of the same type.
    """
    repeated: np.ndarray = np.asarray(values)[patch_clip]
    return repeated


def clip_means(scores: np.ndarray, patch_clip: np.ndarray, n_clips: int) -> np.ndarray:
    """Average the scores of each clip's patches.

    Args:
        scores: (patches, classes).
        patch_clip: (patches,) int from 0 to n_clips - 1, each patch's clip.
        n_clips: clips of the manifest.

    Returns:
        (n_clips, classes) float64; NaN in the rows of clips without a patch.

    Raises:
        ValueError: the two lengths differ.

    Examples:
        >>> clip_means(np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1]), 2)
        array([[0.5],
               [5. ]])
    """
    if len(scores) != len(patch_clip):
        raise ValueError(f"{len(scores)} scores for {len(patch_clip)} patches.")
    sums = np.zeros((n_clips, *np.shape(scores)[1:]))
    np.add.at(sums, patch_clip, scores)
    counts = np.bincount(patch_clip, minlength=n_clips)[:, np.newaxis]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def clip_peaks(scores: np.ndarray, patch_clip: np.ndarray, n_clips: int) -> np.ndarray:
    """Take the largest of each clip's patch scores, class by class.

    Args:
        scores: (patches, classes).
        patch_clip: (patches,) int from 0 to n_clips - 1, each patch's clip.
        n_clips: clips of the manifest.

    Returns:
        (n_clips, classes) float64; NaN in the rows of clips without a patch.

    Raises:
        ValueError: the two lengths differ.
    """
    if len(scores) != len(patch_clip):
        raise ValueError(f"{len(scores)} scores for {len(patch_clip)} patches.")
    peaks = np.full((n_clips, *np.shape(scores)[1:]), np.nan)
    np.fmax.at(peaks, patch_clip, scores)
    return peaks
