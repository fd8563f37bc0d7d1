"""The process that computes the frames of many clips, from the files to their places on disk.

`unfreeze.audio.frame_processes` starts it. A request is a line of JSON: `front_end`, `file`,
`clips` (path and SHA-256 of each) and `offsets` (the row of each, and the end). It decodes,
resamples, transforms and writes; the answer is DONE, or REFUSED where anything went wrong, and
signs of life before that (the messages of `unfreeze.audio.decode_worker`).

It decodes in its own process, which a damaged file may crash. So an answer other than DONE
does not tell what a file is worth: the parent then reads each file of the unit by itself.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from unfreeze.audio.decode import Resampler
from unfreeze.audio.decode_processes import Waveform, waveform_here
from unfreeze.audio.decode_worker import (
    ALIVE,
    DONE,
    OFTEN,
    REFUSED,
    answer_requests,
    limit_time,
    send,
    send_json,
    watched,
)
from unfreeze.audio.frame_writer import FrameWriter
from unfreeze.audio.sound_file import decode_seconds, file_size, open_sound, plain_sound
from unfreeze.backbones.frontend import front_end_from


def main() -> None:
    """Answer requests until standard input ends."""
    answer_requests(_answer)


def _answer(request: dict[str, Any], out: BinaryIO) -> None:
    clips = [(Path(path), content) for path, content in request["clips"]]
    front_end, offsets = front_end_from(request["front_end"]), request["offsets"]
    try:
        with Path(request["file"]).open("r+b") as file:
            write = FrameWriter(file, front_end, clips, offsets, _Reader(out))
            write(iter(range(len(clips))))
    except BrokenPipeError:
        raise
    except Exception as error:
        send_json(out, REFUSED, f"{type(error).__name__}: {error}")
        return
    send(out, DONE)


class _Reader:
    """Reads files in this process, and tells the parent now and then that it does."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._told = out, time.monotonic()

    @contextmanager
    def waveform(self, path: Path, resampler: Resampler) -> Iterator[Waveform]:
        """As `Decoders.waveform`, without another process."""
        if time.monotonic() - self._told > OFTEN:
            send(self._out, ALIVE)
            self._told = time.monotonic()
        # For a plain file, too: the limit of a file before it must not end this one.
        limit_time(decode_seconds(file_size(path)))
        plain = plain_sound(path)
        if plain is not None:
            yield waveform_here(plain, resampler)
            return
        with open_sound(path) as sound:
            found = waveform_here(sound, resampler)
            yield replace(found, blocks=watched(sound, found.blocks, self._out))
