"""The process that decodes files which may be damaged: they may crash it.

`unfreeze.audio.decode_processes` starts it, and it answers one request after another.
A request is a line of JSON on standard input: `paths`, absolute, and to get waveforms
`sample_rate`, `block` and `judge`; without these the files are judged alone. For each file a few
messages go to standard output: a byte of kind, four bytes of length, and the rest:

| kind | meaning | rest |
|---|---|---|
| READY | sent once, when all is imported | |
| ALIVE | decoding continues | |
| BEGUN | the file is open | JSON: sample_rate, promised |
| PIECE | samples of the waveform | float32 |
| DONE | the file is finished | JSON: what was asked for |
| REFUSED | the file cannot be used | JSON: rule, cause |

Messages are raw bytes and JSON, so nothing that a crashed process sends is ever run.
"""

import dataclasses
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unfreeze.audio.decode import Resampler, mono_blocks, waveform_blocks
from unfreeze.audio.hearing import HIGHEST_HEARD
from unfreeze.audio.rules import Extent, examine_sound
from unfreeze.audio.sound_file import (
    MEMORY,
    PATIENCE,
    Sound,
    SoundError,
    decode_seconds,
    open_sound,
)

READY, ALIVE, BEGUN, PIECE, DONE, REFUSED = b"R", b"A", b"B", b"P", b"D", b"X"
HEAD = struct.Struct("<cI")
HARMFUL = "harmful"

# Seconds between two signs of life.
OFTEN = 1.0


def main() -> None:
    """Answer requests until standard input ends."""
    resamplers: dict[int, Resampler] = {}

    def answer(request: dict[str, Any], out: BinaryIO) -> None:
        for path in request["paths"]:
            _answer(Path(path), request, out, resamplers)

    answer_requests(answer)


def answer_requests(answer: Callable[[dict[str, Any], BinaryIO], None]) -> None:
    """Limit what this process may take, then answer requests until standard input ends.

    Args:
        answer: called with each request, and where the messages go.
    """
    # Ctrl-C reaches the whole group of processes; ours ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = _own_output()
    _limit_memory()
    send(out, READY)
    for line in sys.stdin.buffer:
        try:
            answer(json.loads(line), out)
        except BrokenPipeError:
            os._exit(0)


def _own_output() -> BinaryIO:
    """Take standard output for messages: nothing that a decoder prints gets in."""
    out = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    return out


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Not the address space: of that, libraries and threads reserve more than they use.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def limit_time(seconds: float) -> None:
    """Let the system end this process after that many more seconds of processor time.

    Our own check comes first, unless decoding hangs and the parent is gone.
    """
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time() + seconds + PATIENCE)
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def send(out: BinaryIO, kind: bytes, rest: Any = b"") -> None:
    """Send a message."""
    out.write(HEAD.pack(kind, len(rest)))
    out.write(rest)
    out.flush()


def send_json(out: BinaryIO, kind: bytes, value: Any) -> None:
    """Send a message that is JSON."""
    # Names that are not UTF-8 pass as escapes.
    send(out, kind, json.dumps(value).encode("ascii"))


def _answer(
    path: Path, request: dict[str, Any], out: BinaryIO, resamplers: dict[int, Resampler]
) -> None:
    try:
        with open_sound(path) as sound:
            sound.take(request.get("channel", 0))
            if "sample_rate" not in request:
                _examine(sound, request.get("hears", HIGHEST_HEARD), out)
            else:
                rate = request["sample_rate"]
                resampler = resamplers.setdefault(rate, Resampler(rate))
                resampler.hears = request.get("hears", HIGHEST_HEARD)
                _decode(sound, resampler, request["block"], request["judge"], out)
    except SoundError as error:
        send_json(out, REFUSED, {"rule": error.rule, "cause": error.cause})
    except BrokenPipeError:
        raise
    except MemoryError:
        cause = f"it takes more than {MEMORY / 1e9:.1f} GB of memory to decode"
        send_json(out, REFUSED, {"rule": HARMFUL, "cause": cause})
    except Exception as error:
        # Whatever a file causes is the file's problem, and does not end the run.
        cause = f"decoding fails with an unexpected error ({type(error).__name__}: {error})"
        send_json(out, REFUSED, {"rule": HARMFUL, "cause": cause})


def _examine(sound: Sound, hears: float, out: BinaryIO) -> None:
    blocks = watched(sound, mono_blocks(sound), out)
    facts, problems = examine_sound(sound, Path(), blocks, hears=hears)
    answer = {
        "facts": None if facts is None else dataclasses.asdict(facts),
        "problems": [[p.rule, p.cause, p.fatal] for p in problems],
    }
    send_json(out, DONE, answer)


def _decode(sound: Sound, resampler: Resampler, block: int, judge: bool, out: BinaryIO) -> None:
    send_json(out, BEGUN, {"sample_rate": sound.sample_rate, "promised": sound.promised})
    extent = Extent(sound, resampler.hears)
    watch = extent.add if judge else None
    blocks = waveform_blocks(sound, resampler, block=block, watch=watch)
    for piece in watched(sound, blocks, out):
        send(out, PIECE, np.ascontiguousarray(piece, dtype="<f4").data.cast("B"))
    send_json(out, DONE, {"findings": extent.judge() if judge else []})


def watched(sound: Sound, blocks: Iterator[np.ndarray], out: BinaryIO) -> Iterator[np.ndarray]:
    """Pass blocks on, send the parent signs of life, and end what takes too long."""
    limit = decode_seconds(sound.size)
    limit_time(limit)
    # Processor time: a busy machine or a slow reader of ours is not the file's fault.
    began, told = time.process_time(), time.monotonic()
    for block in blocks:
        if time.process_time() - began > limit:
            cause = f"it takes more than {limit:.0f} s to decode, which is too much for its size"
            raise SoundError(sound.path, HARMFUL, cause)
        if time.monotonic() - told > OFTEN:
            send(out, ALIVE)
            told = time.monotonic()
        yield block
