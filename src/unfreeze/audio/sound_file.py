"""Recognizes and opens one sound file by its content, and limits what reading it may cost.

The content decides what a file is, as in libsndfile; the extension only says whether a
file in a class folder was meant to be a recording. A few kilobytes can claim years of
sound, and a FLAC file can really hold them: so limits on memory, time and length are
checked early. They are far above anything that is ever recorded.
`unfreeze.audio.decode` reads what is opened here.
"""

import io
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile

from unfreeze.audio.ffmpeg_reader import FfmpegError, FfmpegReader, find_ffmpeg
from unfreeze.audio.mixing import Mixer
from unfreeze.audio.sound_formats import (
    HEAD_BYTES,
    KALEIDOSCOPE,
    READABLE,
    UNREADABLE,
    Foreign,
    begins_as_sound,
    explain_foreign,
    explain_refusal,
    for_ffmpeg,
    foreign_format,
    has_sound_signature,
    holds_no_sound,
)
from unfreeze.audio.stated_length import Misstated, ViewedFile, find_misstated
from unfreeze.audio.wav import WAV_NAMES, PcmReader, WavHeader, plain_reader, read_wav_header
from unfreeze.errors import DataError, show

# Seconds without a sign of life after which decoding counts as hung. A sign is
# sent after each block, which takes a tenth of a second.
PATIENCE = 60.0
# Bytes that a process which decodes may hold. It needs 0.1 GB, and of an MP3
# inside a WAV the whole file.
MEMORY = 1 << 30
# Larger samples are not sound, whatever the scale: 32-bit integers stored as floats
# reach 2e9. From 1e34 on the log-mel frames would be infinite.
LARGEST_SAMPLE = 1e12
# A training clip has one label for all of its length: none lasts a day.
LONGEST_CLIP = 24 * 3600.0

_HOUR, _MEGABYTE = 3600.0, 1e6
# Processor seconds for a file, and for each megabyte of it. Speech at 6 kbit/s
# has 22 minutes in a megabyte, which take a slow processor 10 seconds.
_SECONDS, _SECONDS_A_MEGABYTE = 10.0, 15.0
# Hours of sound in a file, and for each megabyte of it. Ten hours of silence at
# 16 kHz are 2 MB of FLAC: 5 hours per megabyte, more than any recorder's noise.
_HOURS, _HOURS_A_MEGABYTE = 24.0, 20.0

# Bytes of a file that is read at once rather than in blocks.
_WHOLE = 8 << 20
# Samples that are copied at once.
_COPIED = 1 << 16
# From here on a length means "unknown": libsndfile says 2^63 - 1 where the header has
# none, as in a FLAC written to a pipe.
UNKNOWN = 1 << 62
NOT_FINITE = "it has NaN or infinite samples, or some that are larger than 1e12"

# Sample rates in hertz that are plausible: lower ones hold no sound that a model
# could use, and no recorder has higher ones (bat detectors reach 500 kHz).
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000


def decode_seconds(size: int) -> float:
    """Return the processor seconds that decoding may take.

    Args:
        size: bytes of the file.
    """
    return _SECONDS + _SECONDS_A_MEGABYTE * size / _MEGABYTE


def longest_seconds(size: int) -> float:
    """Return the longest plausible length of a file of this size, in seconds of sound.

    Args:
        size: bytes of the file.
    """
    return _HOUR * (_HOURS + _HOURS_A_MEGABYTE * size / _MEGABYTE)


def meant_as_sound(path: Path) -> bool:
    """Say whether a file in a class folder was meant to be a recording.

    Args:
        path: a regular file. It is opened only when its extension does not decide.

    Returns:
        True for a known extension, in upper or lower case and readable or not, or
        for the first bytes of a sound format.
    """
    suffix = path.suffix.lower()
    if suffix in READABLE or suffix in UNREADABLE:
        return True
    try:
        with path.open("rb") as file:
            return begins_as_sound(file.read(HEAD_BYTES))
    except OSError:
        return False


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

    def __reduce__(self) -> tuple[type["SoundError"], tuple[Path, str, str]]:
        # It comes back from other machines.
        return type(self), (self.path, self.rule, self.cause)


@dataclass(frozen=True)
class Sound:
    """An open sound file.

    Attributes:
        path: the file.
        file: the reader, at the first sample.
        sample_rate: hertz.
        channels: 1 or more.
        promised: samples per channel that libsndfile expects; `UNKNOWN` or more
            where nothing says.
        stated: samples per channel by the header, which may be wrong; None where
            it does not say.
        whole: True where the file shows that its end is there, so that a header
            which promises more is wrong.
        exact: False for MPEG, whose expected length is an estimate.
        size: bytes of the file.
        content: the bytes that the samples come from, if they are all in memory;
            else None.
        mixer: mixes the channels as they are read, and remembers what it found.
    """

    path: Path
    file: soundfile.SoundFile | PcmReader | FfmpegReader
    sample_rate: int
    channels: int
    promised: int
    stated: int | None
    whole: bool
    exact: bool
    size: int
    content: bytes | None
    mixer: Mixer

    def take(self, channel: int) -> None:
        """Take one channel, counted from 1, instead of mixing them; 0 mixes them.

        Raises:
            SoundError: there are not so many.
        """
        if channel > self.channels:
            has = "one channel" if self.channels == 1 else f"{self.channels} channels"
            cause = f"it has {has}, so that channel {channel} cannot be taken (--channel)"
            raise SoundError(self.path, "channel", cause)
        self.mixer.take(channel)


@dataclass(frozen=True)
class _Look:
    """What the first look at a file shows, before any decoder sees it."""

    size: int
    head: bytes
    header: WavHeader | None
    misstated: Misstated | None
    content: bytes | None
    reader: PcmReader | None
    foreign: Foreign | None


def plain_sound(path: Path) -> Sound | None:
    """Open a sound file whose samples numpy alone can read.

    Args:
        path: the file.

    Returns:
        The open file, which needs no closing; None when libsndfile must read it,
        if anything can.

    Raises:
        SoundError: as `open_sound`, for everything that is known without libsndfile.
    """
    look = _look(path, plain=True)
    return None if look.reader is None else _checked(path, look, look.reader)


@contextmanager
def open_sound(path: Path) -> Iterator[Sound]:
    """Open a sound file by its content.

    libsndfile reads it in this process, so a file that crashes libsndfile crashes the
    process. `unfreeze.audio.decode_processes` reads files that may be damaged.

    Args:
        path: the file.

    Yields:
        The open file.

    Raises:
        SoundError: it is missing, empty, not a regular file, not sound, has no
            header, an implausible sample rate, or more sound than its size can
            hold.
    """
    look = _look(path)
    with ExitStack() as stack:
        try:
            file = look.reader or _open(path, look, stack)
        except OSError as error:
            raise SoundError(path, "unreadable", f"it cannot be read: {_reason(error)}") from error
        except soundfile.SoundFileError as error:
            codec = None if look.header is None else look.header.format.codec
            cause = explain_refusal(path, look.head, said(error), codec)
            raise SoundError(path, "unreadable", cause) from error
        stack.callback(file.close)
        yield _checked(path, look, file)


def _look(path: Path, plain: bool = False) -> _Look:
    """Take the first look; `plain` leaves out what only matters to libsndfile."""
    size = _regular_size(path)
    try:
        with path.open("rb", buffering=0) as raw:
            head = raw.read(HEAD_BYTES)
            header, content = None, None
            if head.startswith(WAV_NAMES):
                content = head + raw.read() if size <= _WHOLE else None
                # What is in memory needs no more system calls.
                header = read_wav_header(raw if content is None else io.BytesIO(content))
            misstated = None if plain else find_misstated(raw, head, header)
    except OSError as error:
        raise SoundError(path, "unreadable", f"it cannot be read: {_reason(error)}") from error
    cause = holds_no_sound(head)
    if cause is not None:
        # Not left to libsndfile: its MP3 decoder would look for sound in
        # a text and report every byte on the terminal.
        raise SoundError(path, "unreadable", cause)
    foreign = foreign_format(head)
    if foreign is not None and (foreign.reader is None or find_ffmpeg() is None):
        raise SoundError(path, "unreadable", explain_foreign(foreign))
    reader = None if content is None or header is None else plain_reader(content, header)
    return _Look(size, head, header, misstated, content, reader, foreign)


def _checked(
    path: Path, look: _Look, file: soundfile.SoundFile | PcmReader | FfmpegReader
) -> Sound:
    if file.format == "RAW":
        # libsndfile reads .vox, .gsm, .au and .snd files without a known
        # header as raw samples: anything would "play" as noise.
        raise SoundError(path, "unreadable", explain_refusal(path, look.head, "no header"))
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        cause = (
            f"its header says {file.samplerate} samples a second, outside "
            f"{LOWEST_RATE} to {HIGHEST_RATE}"
        )
        raise SoundError(path, "unreadable", cause)
    misstated = look.misstated
    stated = file.frames if misstated is None else misstated.stated_samples(file.frames)
    sound = Sound(
        path=path,
        file=file,
        sample_rate=file.samplerate,
        channels=file.channels,
        promised=file.frames,
        stated=stated if stated < UNKNOWN else None,
        whole=misstated is not None and misstated.whole,
        exact=not file.subtype.startswith("MPEG"),
        size=look.size,
        content=look.content if file is look.reader else None,
        mixer=Mixer(file.samplerate, file.channels),
    )
    if sound.exact:
        check_length(sound, sound.promised, "the header claims")
    return sound


def check_length(sound: Sound, samples: int, what: str) -> None:
    """Refuse more sound than a file of its size can hold.

    Args:
        sound: the file.
        samples: at its own rate.
        what: where the number comes from, as in "the header claims".

    Raises:
        SoundError: there are too many.
    """
    limit = longest_seconds(sound.size)
    if limit * sound.sample_rate < samples < UNKNOWN:
        raise SoundError(
            sound.path,
            "too_long",
            f"{what} {samples / sound.sample_rate / 3600:,.0f} hours of sound or more; at most "
            f"{limit / 3600:,.0f} are plausible for a file of {sound.size / 1e6:.3g} MB. If it is "
            f"sound, convert it (ffmpeg -i FILE FILE.wav)",
        )


class _Forward(soundfile.SoundFile):
    """Reads forwards only.

    SoundFile seeks to where it already is after every read. In MP3 that seek is
    not exact, and in every format it costs two more calls.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path, look: _Look, stack: ExitStack) -> soundfile.SoundFile | FfmpegReader:
    if look.foreign is not None:
        return _through_ffmpeg(path, look, look.foreign)
    try:
        return _by_libsndfile(path, look, stack)
    except soundfile.SoundFileError:
        codec = None if look.header is None else look.header.format.codec
        foreign = for_ffmpeg(look.head, codec)
        if foreign is None or path.suffix.lower() in KALEIDOSCOPE or find_ffmpeg() is None:
            raise
        return _through_ffmpeg(path, look, foreign)


def _through_ffmpeg(path: Path, look: _Look, foreign: Foreign) -> FfmpegReader:
    program = find_ffmpeg()
    if program is None or foreign.reader is None:
        raise SoundError(path, "unreadable", explain_foreign(foreign))
    try:
        return FfmpegReader(program, path, foreign.reader, decode_seconds(look.size), MEMORY)
    except FfmpegError as error:
        cause = f"it is {foreign.name}, but ffmpeg cannot decode it ({error}); export it as WAV"
        raise SoundError(path, "unreadable", cause) from error


def _by_libsndfile(path: Path, look: _Look, stack: ExitStack) -> soundfile.SoundFile:
    head, header = look.head, look.header
    if header is not None and header.format.holds_mpeg and header.trailing and header.right:
        # libsndfile hands all that follows to the MP3 decoder, chunks of text
        # too, which then complains on the terminal: end where the samples end.
        return _Forward(io.BytesIO(_bytes(path, 0, header.data_end)))
    if path.suffix.lower() == ".raw":
        # For this extension SoundFile would ask for the sample rate.
        content = path.read_bytes() if has_sound_signature(head) else head
        return _Forward(io.BytesIO(content))
    try:
        if look.misstated is not None:
            return _Forward(stack.enter_context(ViewedFile(path, look.misstated.view)))
        return _Forward(library_name(path))
    except soundfile.SoundFileError:
        if header is None or not header.format.holds_mpeg:
            raise
        # Before 1.1 libsndfile read no MP3 in WAV; also, some headers are odd.
        return _Forward(io.BytesIO(_bytes(path, header.data_start, header.data_end)))


@contextmanager
def library_source(path: Path, until: float) -> Iterator[str | bytes | BinaryIO]:
    """Give what SoundFile should open to read a file's samples, all of them and no others.

    Args:
        path: the file.
        until: seconds of it that are needed.

    Yields:
        Its name; or a view of it with a header that states the right length; or, of
        what only ffmpeg reads, a copy for the time being.

    Raises:
        SoundError: as `open_sound`.
    """
    look = _look(path)
    if look.foreign is not None:
        with tempfile.TemporaryFile() as copy:
            _copy(path, copy, until)
            copy.seek(0)
            yield copy
    elif look.misstated is not None:
        with ViewedFile(path, look.misstated.view) as shown:
            # All of BinaryIO that SoundFile asks for.
            yield cast(BinaryIO, shown)
    else:
        yield library_name(path)


def _copy(path: Path, copy: BinaryIO, until: float) -> None:
    with open_sound(path) as sound:
        left = math.ceil(until * sound.sample_rate)
        buffer = np.empty((_COPIED, sound.channels), np.float32)
        with soundfile.SoundFile(
            copy, "w", sound.sample_rate, sound.channels, "FLOAT", format="RF64"
        ) as target:
            while left > 0 and len(samples := sound.file.read(out=buffer[:left])):
                target.write(samples)
                left -= len(samples)


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
        raise SoundError(path, "unreadable", "it is not a regular file")
    if status.st_size == 0:
        raise SoundError(path, "empty", "the file has 0 bytes")
    return status.st_size


def file_size(path: Path) -> int:
    """Return a file's size in bytes; 0 where it is gone, which opening it will report."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def said(error: Exception) -> str:
    """What libsndfile says is wrong."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
