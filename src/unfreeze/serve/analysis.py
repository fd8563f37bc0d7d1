"""From an uploaded file to the answer about it. Runs in one thread at a time."""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.logmel import log_mel_frames
from unfreeze.audio.rules import as_warnings
from unfreeze.audio.sound_file import SoundError
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.classifier import SoundClassifier
from unfreeze.detection.detector import all_events
from unfreeze.detection.events import DetectOptions
from unfreeze.errors import UnfreezeError
from unfreeze.serve.answers import EventAnswer, Prediction, Refused, Spectrogram
from unfreeze.serve.upload import Limits, Upload

# Wider than any screen in pixels; 340 kB in the answer.
_COLUMNS = 4000
_CURES = {
    "empty": "Record or export it again.",
    "non_finite": "Export it again, as 16-bit PCM.",
}
_CURE = "Send a WAV, FLAC, MP3, OGG or AIFF file that plays elsewhere."


@dataclass(frozen=True)
class Recording:
    """A decoded recording.

    Attributes:
        waveform: (samples,) float32 mono at the model's rate.
        source_rate: sample rate of the file, hertz.
        warnings: what is wrong with the file, a clause each.
    """

    waveform: np.ndarray
    source_rate: int
    warnings: tuple[str, ...]


def analyse(
    classifier: SoundClassifier,
    upload: Upload,
    limits: Limits,
    hop: float | None,
    min_score: float | Mapping[str, float] | None,
    spectrogram: bool,
) -> Prediction:
    """Find out what is in a file, and when.

    Args:
        classifier: the model.
        upload: the file.
        limits: of duration and decoding time.
        hop: seconds from one scored patch to the next; None is the model's.
        min_score: smallest score of an event, for all classes or by class; None is each class's
            threshold.
        spectrogram: add the picture.

    Raises:
        Refused: the file is not a sound file (422) or too long (413), or the hop
            cannot be used (422).
    """
    try:
        recording = decode_within(upload.path, classifier.front_end, limits, classifier.decoders)
        detector = classifier.detector(DetectOptions(hop=hop, min_score=min_score))
        blocks = list(classifier.scan(upload.path))
        # The network runs once for both, unless events need another hop.
        at_hop = blocks if hop is None else classifier.scan(upload.path, hop=hop)
        events = all_events(detector, at_hop)
    except SoundError as error:
        cause = error.cause
        raise Refused(422, cause, _CURES.get(error.rule, _CURE), file=upload.name) from None
    except UnfreezeError as error:
        raise Refused(422, str(error), "Change it and send the file again.") from None
    except Refused as refused:
        refused.file = upload.name
        raise
    # As in `classifier.predict`: the mean over the patches at the model's own hop.
    scores = np.concatenate([block.scores for block in blocks]).mean(axis=0)
    order = np.argsort(-scores, kind="stable")
    return Prediction(
        file=upload.name,
        duration=len(recording.waveform) / classifier.sample_rate,
        sample_rate=recording.source_rate,
        classes={classifier.labels[i]: float(scores[i]) for i in order},
        heard=list(classifier.heard(scores, silent=not recording.waveform.any())),
        warnings=list(recording.warnings),
        events=[EventAnswer(e.start, e.end, e.label, e.score) for e in events],
        spectrogram=picture(recording.waveform, classifier.front_end) if spectrogram else None,
    )


def decode_within(path: Path, front_end: FrontEnd, limits: Limits, decoders: Decoders) -> Recording:
    """Decode a file within the limits.

    The length in the file's header is not trusted: samples are counted as they are
    decoded, so a file that decodes to hours costs no more than the limit.

    Args:
        path: the file.
        front_end: of the model; gives the waveform's rate.
        limits: of duration and decoding time.
        decoders: processes to read with, so that no file can end the server.

    Raises:
        SoundError: the file cannot be decoded.
        Refused: it is too long (413), or takes too long to decode (422).
    """
    blocks, samples = [], 0
    deadline = time.monotonic() + limits.decode_seconds
    sample_rate = front_end.sample_rate
    hears = front_end.high_hz / front_end.slow_down
    resampler = Resampler(sample_rate, front_end.channel, hears)
    with decoders.waveform(path, resampler, judge=True) as sound:
        for block in sound.blocks:
            blocks.append(block)
            samples += len(block)
            if samples > limits.max_seconds * sample_rate:
                cause = f"it is longer than {limits.max_seconds:g} s, the limit of this server"
                raise Refused(413, cause, "Cut it and send the pieces.")
            if time.monotonic() > deadline:
                cause = f"it takes more than {limits.decode_seconds:g} s to decode"
                raise Refused(422, cause, "Send it with fewer channels or a lower sample rate.")
        warnings = as_warnings(sound.findings, front_end.slow_down)
        return Recording(np.concatenate(blocks), sound.sample_rate, warnings)


def picture(waveform: np.ndarray, front_end: FrontEnd) -> Spectrogram:
    """Make the log-mel picture that the network sees, at most as wide as a screen.

    Args:
        waveform: (samples,) mono at the front end's rate.
        front_end: the model's.
    """
    front_end = front_end.picture
    frames = log_mel_frames(waveform, front_end)
    # Without the padding after the recording's end.
    frames = frames[: max(-(-len(waveform) // front_end.hop), 1)]
    group = -(-len(frames) // _COLUMNS)
    starts = np.arange(0, len(frames), group)
    # The loudest of the frames in a column, so that a click stays visible.
    columns = np.maximum.reduceat(frames, starts, axis=0)
    low, high = float(columns.min()), float(columns.max())
    levels = np.round((columns - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return Spectrogram(
        columns=len(columns),
        bands=front_end.bands,
        seconds=len(starts) * group * front_end.hop / front_end.sample_rate,
        low_hz=front_end.low_hz,
        high_hz=front_end.high_hz,
        levels=base64.b64encode(levels.tobytes()).decode("ascii"),
    )
