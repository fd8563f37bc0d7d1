"""Pictures and sounds of clips, small enough for many to be inside one page.

Both are as the network hears them: mono, at its rate, slowed down where it is. A page holds
them as data URLs, so that it needs no other file.
"""

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
from PIL import Image

from unfreeze.audio.annotations import heard
from unfreeze.audio.decode_processes import Decoders, using
from unfreeze.audio.excerpts import Excerpt, Span, cut_excerpts
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.backbones.frontend import FrontEnd

# Levels of a picture: 32 are enough for the eye and halve its size.
_LEVELS = 32
# Height of a picture in pixels for each band.
_ZOOM = 2
# Bytes of the elements of a clip, with its name in them.
_AROUND = 1000
# Peak of a sound in the page: quiet clips must be audible beside loud ones.
_PEAK = 0.9


@dataclass(frozen=True)
class Media:
    """What a page shows and plays of a clip.

    Attributes:
        picture: the spectrogram, a data URL.
        sound: the excerpt, a data URL.
        seconds: length of the excerpt in the recording.
        start: seconds, where it begins in the recording.
    """

    picture: str
    sound: str
    seconds: float
    start: float

    @property
    def size(self) -> int:
        """Bytes in the page, with what is around them."""
        return len(self.picture) + len(self.sound) + _AROUND


def cut_media(
    spans: Sequence[Span],
    front_end: FrontEnd,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    decoders: Decoders | None = None,
) -> tuple[dict[Span, Media], bool]:
    """Cut, draw and compress an excerpt of each clip.

    Args:
        spans: the clips, the most important first.
        front_end: of the network that hears them.
        budget: bytes of all of them at most; None for any number.
        progress: called as progress(done, total) with counts of clips.
        decoders: to read with; None starts some for this call.

    Returns:
        The media by span, without those of clips that cannot be read; and whether the budget
        has left some out, too.
    """
    wanted = list(dict.fromkeys(spans))
    media: dict[Span, Media] = {}
    left = budget
    with using(decoders) as own, closing(cut_excerpts(wanted, front_end, own)) as excerpts:
        for number, excerpt in excerpts:
            made = _media(excerpt, front_end)
            if left is not None:
                left -= made.size
                if left < 0:
                    return media, True
            media[wanted[number]] = made
            if progress is not None:
                progress(len(media), len(wanted))
    return media, False


def span_of(path: Path, start: float | None, end: float | None, window: float) -> Span:
    """What a model hears of a clip: of a short sound, what surrounds it, too.

    Args:
        path: the recording.
        start: seconds, where the clip begins in it; None for all of it.
        end: seconds, where it ends; None likewise.
        window: seconds that the model hears at once.
    """
    if start is None or end is None:
        return Span(path)
    first, last = heard(start, end, window)
    return Span(path, max(first, 0.0), last)


def spectrogram(waveform: np.ndarray, front_end: FrontEnd) -> bytes:
    """The log-mel frames that the network hears, as a PNG: low bands at the bottom.

    Args:
        waveform: (samples,) mono, at the front end's rate.
        front_end: the settings.
    """
    front_end = front_end.picture
    frames = log_mel_frames(waveform, front_end)
    frames = frames[: max(-(-len(waveform) // front_end.hop), 1)]
    low, high = np.percentile(frames, 2), frames.max()
    levels = np.clip((frames - low) / max(high - low, 1e-6), 0, 1) * (_LEVELS - 1)
    picture = Image.fromarray(np.repeat(levels.T[::-1].round().astype(np.uint8), _ZOOM, axis=0))
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, _LEVELS))[:, :3]
    picture.putpalette((255 * colours).astype(np.uint8).tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """Bytes as a URL that holds them; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _media(excerpt: Excerpt, front_end: FrontEnd) -> Media:
    seconds = len(excerpt.waveform) / front_end.sample_rate
    return Media(
        data_url("image/png", spectrogram(excerpt.waveform, front_end)),
        data_url(*_sound(excerpt.waveform, front_end)),
        seconds,
        excerpt.start,
    )


def _sound(waveform: np.ndarray, front_end: FrontEnd) -> tuple[str, bytes]:
    # MP3 plays in every browser; Opus in Ogg does not in Safari.
    peak = float(np.abs(waveform).max())
    samples = waveform * (_PEAK / peak) if peak > 0 else waveform
    form = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    file = io.BytesIO()
    rate = round(front_end.sample_rate / front_end.slow_down)
    soundfile.write(file, samples, rate, format=form)
    return ("audio/mpeg" if form == "MP3" else "audio/flac"), file.getvalue()
