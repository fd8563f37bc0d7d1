"""One sound file, opened by its content. `unfreeze.audio.mono` reads it."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile

from unfreeze.audio.formats import explain_refusal, has_sound_signature, holds_no_sound
from unfreeze.audio.limits import longest_seconds
from unfreeze.audio.names import show
from unfreeze.audio.pcm import PcmReader, plain_reader
from unfreeze.audio.wav import WavHeader, read_wav_header
from unfreeze.errors import DataError

# Sample rates in hertz that are taken for real: below lies no sound that a
# model could use, above lies no recorder (bat detectors reach 500 kHz).
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000

_HEAD = 512
# Bytes of a file that is read at once rather than in blocks.
_WHOLE = 8 << 20
# From here on a length is none: libsndfile says 2^63 - 1 where the header does not
# know, as that of a FLAC written to a pipe.
UNKNOWN = 1 << 62
NOT_FINITE = "it has NaN or infinite samples, or some that are larger than 1e12"


class SoundError(DataError):
    """A sound file that cannot be decoded.

    Attributes:
        path: the file.
        rule: the name of the rule it breaks, as in `unfreeze.audio.rules`.
        cause: what is wrong, without the file's name.
    """

    def __init__(self, path: Path, rule: str, cause: str) -> None:
        super().__init__(f"{show(path)}: {cause}.")
        self.path, self.rule, self.cause = path, rule, cause


@dataclass(frozen=True)
class Sound:
    """An open sound file.

    Attributes:
        path: the file.
        file: the reader, at the first sample.
        sample_rate: hertz.
        channels: 1 or more.
        promised: samples a channel that libsndfile expects; `UNKNOWN` or more
            where the header does not say.
        kept: the part of the bytes promised by a WAV header that is there.
        exact: False for MPEG, whose expected length is an estimate.
        size: bytes of the file.
        content: the bytes that the samples come from, where they are all in
            memory; else None.
    """

    path: Path
    file: soundfile.SoundFile | PcmReader
    sample_rate: int
    channels: int
    promised: int
    kept: float
    exact: bool
    size: int
    content: bytes | None


@dataclass(frozen=True)
class _Look:
    """What the first look at a file tells, before any decoder sees it."""

    size: int
    head: bytes
    header: WavHeader | None
    content: bytes | None
    reader: PcmReader | None


def plain_sound(path: Path) -> Sound | None:
    """Open a sound file whose samples numpy alone can read.

    Args:
        path: the file.

    Returns:
        The open file, which needs no closing; None when only libsndfile could
        read it, if at all.

    Raises:
        SoundError: as `open_sound`, for all that is known without libsndfile.
    """
    look = _look(path)
    return None if look.reader is None else _checked(path, look, look.reader)


@contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Open a sound file by its content.

    libsndfile reads it in this process: a file that makes it crash takes the
    process along. `unfreeze.audio.decoders` reads files that nobody vouches for.

    Args:
        path: the file.

    Yields:
        The open file.

    Raises:
        SoundError: missing, empty, no regular file, no sound, without a header,
            an absurd sample rate, or more sound than its size can hold.
    """
    look = _look(path)
    try:
        file = look.reader or _open(path, look)
    except OSError as error:
        raise SoundError(path, "unreadable", f"it cannot be read: {_reason(error)}") from error
    except soundfile.SoundFileError as error:
        cause = explain_refusal(path, look.head, said(error))
        raise SoundError(path, "unreadable", cause) from error
    with closing(file):
        yield _checked(path, look, file)


def _look(path: Path) -> _Look:
    size = _regular_size(path)
    try:
        with path.open("rb", buffering=0) as raw:
            head = raw.read(_HEAD)
            header, content = None, None
            if head.startswith(b"RIFF"):
                content = head + raw.read() if size <= _WHOLE else None
                # What is in memory costs no more calls to the system.
                header = read_wav_header(raw if content is None else io.BytesIO(content))
    except OSError as error:
        raise SoundError(path, "unreadable", f"it cannot be read: {_reason(error)}") from error
    cause = holds_no_sound(head)
    if cause is not None:
        # Not left to libsndfile: its MP3 decoder would look for sound in
        # a text and report every byte on the terminal.
        raise SoundError(path, "unreadable", cause)
    reader = None if content is None or header is None else plain_reader(content, header)
    return _Look(size, head, header, content, reader)


def _checked(path: Path, look: _Look, file: soundfile.SoundFile | PcmReader) -> Sound:
    if file.format == "RAW":
        # libsndfile takes .vox, .gsm, .au and .snd files without a known
        # header for bare samples: anything would "play" as noise.
        raise SoundError(path, "unreadable", explain_refusal(path, look.head, "no header"))
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        cause = (
            f"its header says {file.samplerate} samples a second, outside "
            f"{LOWEST_RATE} to {HIGHEST_RATE}"
        )
        raise SoundError(path, "unreadable", cause)
    sound = Sound(
        path=path,
        file=file,
        sample_rate=file.samplerate,
        channels=file.channels,
        promised=file.frames,
        kept=1.0 if look.header is None else look.header.kept,
        exact=not file.subtype.startswith("MPEG"),
        size=look.size,
        content=look.content if file is look.reader else None,
    )
    if sound.exact:
        check_length(sound, sound.promised, "its header promises")
    return sound


def check_length(sound: Sound, samples: int, what: str) -> None:
    """Refuse more sound than a file of its size can hold.

    Args:
        sound: the file.
        samples: at its own rate.
        what: tells of them, as in "its header promises".

    Raises:
        SoundError: that is too much.
    """
    limit = longest_seconds(sound.size)
    if limit * sound.sample_rate < samples < UNKNOWN:
        raise SoundError(
            sound.path,
            "too_long",
            f"{what} {samples / sound.sample_rate / 3600:,.0f} hours of sound or more, and a "
            f"file of {sound.size / 1e6:.3g} MB is believed {limit / 3600:,.0f}; if it is sound, "
            f"convert it (ffmpeg -i FILE FILE.wav)",
        )


class _Forward(soundfile.SoundFile):
    """Reads forwards only.

    SoundFile seeks to where it already is after every read. In MP3 that seek is
    not exact, and in every format it costs two more calls.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path, look: _Look) -> soundfile.SoundFile:
    head, header = look.head, look.header
    if header is not None and header.holds_mpeg and header.trailing:
        # libsndfile hands all that follows to the MP3 decoder, chunks of text
        # too, which then complains on the terminal: end where the samples end.
        return _Forward(io.BytesIO(_bytes(path, 0, header.data_end)))
    if path.suffix.lower() == ".raw":
        # By this ending SoundFile would ask for the sample rate.
        content = path.read_bytes() if has_sound_signature(head) else head
        return _Forward(io.BytesIO(content))
    try:
        return _Forward(library_name(path))
    except soundfile.SoundFileError:
        if header is None or not header.holds_mpeg:
            raise
        # Before 1.1 libsndfile read no MP3 in WAV; also, some headers are odd.
        return _Forward(io.BytesIO(_bytes(path, header.data_start, header.data_end)))


def library_name(path: Path) -> str | bytes:
    """Return a file's name as SoundFile takes it: it cannot encode one that is not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _bytes(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _regular_size(path: Path) -> int:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise SoundError(path, "missing", f"it cannot be opened: {_reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        # A pipe would block for ever.
        raise SoundError(path, "unreadable", "it is no regular file")
    if status.st_size == 0:
        raise SoundError(path, "empty", "the file has 0 bytes")
    return status.st_size


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def said(error: Exception) -> str:
    """What libsndfile says is wrong."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
