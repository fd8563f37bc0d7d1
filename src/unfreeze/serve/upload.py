"""Uploads: the file of a multipart body (RFC 7578), the server's limits, and the queue.

The file is written to disk as it arrives. Size and time are limited while the body is
read, so an endless body costs no more than the limit. The client's file name is only
text to show: on disk the file has a random name, and only the server's user may open it.
"""

import asyncio
import math
import ntpath
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from unfreeze.errors import show
from unfreeze.serve.answers import Refused


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        max_mb: size of a file, in megabytes (10^6 bytes).
        max_seconds: duration of a recording, in seconds.
        places: requests that may be sending, waiting or running at once. Together they
            use at most `places` times `max_mb` of disk.
        upload_seconds: time to send a whole file.
        stall_seconds: time without a single byte after which the upload is aborted.
        decode_seconds: time for decoding; a file within the other limits can still be
            made to take hours (hundreds of channels).
    """

    max_mb: float = 50.0
    max_seconds: float = 600.0
    places: int = 32
    upload_seconds: float = 600.0
    stall_seconds: float = 30.0
    decode_seconds: float = 60.0

    @property
    def max_bytes(self) -> int:
        """Largest size of a file, in bytes."""
        return int(self.max_mb * 1e6)


class Line:
    """A queue of fixed length; one request at a time uses the network.

    A request takes its place before its body is read, so requests that find the queue
    full cost neither disk nor memory.

    Args:
        places: length of the queue.
    """

    def __init__(self, places: int) -> None:
        self.places, self.taken = places, 0
        self._turn = asyncio.Lock()
        self._seconds = 1.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue.

        Raises:
            Refused: all places are taken (503).
        """
        if self.taken >= self.places:
            wait = max(1, math.ceil(self._seconds * self.taken))
            raise Refused(
                503,
                f"the server is busy: {self.taken} recordings are waiting already",
                f"Try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn; no other request has it until the block ends."""
        async with self._turn:
            began = time.monotonic()
            yield
            # A running mean with weight one half, to follow changes of the recordings' length.
            self._seconds = (self._seconds + time.monotonic() - began) / 2


FIELD = "file"
_SEND = f"Send the file as the part `{FIELD}` of a form: curl -F {FIELD}=@SOUND.wav URL."
# Boundaries, headers of the parts, small other fields.
_OVERHEAD = 64 * 1024
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """A received file.

    Attributes:
        path: where it is, until the block that received it ends.
        name: the client's name for it, made printable; never a path of ours.
    """

    path: Path
    name: str


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[Upload]:
    """Receive a request's file; it is always removed when the block ends.

    Args:
        request: a POST whose body has not been read.
        limits: of size and time.

    Yields:
        The file.

    Raises:
        Refused: the form cannot be used (400, 415, 422), the file is too large (413)
            or arrives too slowly (408), or the disk is full (507).
    """
    boundary = _boundary(request)
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > limits.max_bytes + _OVERHEAD:
        raise _too_large(limits, None)
    with tempfile.TemporaryDirectory(prefix="unfreeze-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "upload"
        try:
            async with asyncio.timeout(limits.upload_seconds):
                name = await _write(request, boundary, limits, path)
        except TimeoutError:
            cause = f"the file did not arrive in {limits.upload_seconds:g} s"
            cause += f", or nothing did for {limits.stall_seconds:g} s"
            raise Refused(408, cause, "Send it again, or a smaller one.") from None
        yield Upload(path, name)


async def _write(request: Request, boundary: bytes, limits: Limits, path: Path) -> str:
    part = _FilePart()
    body = written = 0
    stream = aiter(request.stream())
    with path.open("wb") as file:
        try:
            parser = MultipartParser(boundary, part.callbacks())
            while True:
                async with asyncio.timeout(limits.stall_seconds):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                parser.write(chunk)
                data = part.take()
                body, written = body + len(chunk), written + len(data)
                if written > limits.max_bytes or body > limits.max_bytes + _OVERHEAD:
                    raise _too_large(limits, part.name)
                if data:
                    await asyncio.to_thread(file.write, data)
            parser.finalize()
            await asyncio.to_thread(file.flush)
        except FormParserError as error:
            raise Refused(400, f"the form cannot be read ({error})", _SEND) from None
        except TimeoutError:
            # Also an OSError, but not the disk's.
            raise
        except OSError as error:
            cause = f"the server cannot store the file ({error.strerror})"
            raise Refused(
                507, cause, "Try again later, or report it to the server's operator."
            ) from None
    if not part.body_ended:
        raise Refused(400, "the form ends before its last boundary", "Send it again.")
    if part.name is None:
        raise Refused(422, f"the form has no file named `{FIELD}`", _SEND)
    return part.name


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refused(415, "the body is not a form (multipart/form-data)", _SEND)
    if not options.get(b"boundary"):
        raise Refused(400, "the form's header names no boundary", _SEND)
    return bytes(options[b"boundary"])


def _too_large(limits: Limits, name: str | None) -> Refused:
    cause = f"it is larger than {limits.max_mb:g} MB, the limit of this server"
    return Refused(
        413, cause, "Send a part of it, or send it as FLAC or MP3.", file=name or "the file"
    )


class _FilePart:
    """Takes the first part with the right name and a file name from the parser's calls.

    Attributes:
        name: the file's name; None before such a part begins.
        body_ended: whether the last boundary has been read.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.body_ended = False
        self._inside = False
        self._field, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        """The functions for the parser to call."""
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_end": self._ends,
        }

    def take(self) -> bytes:
        """Return the bytes of the file received since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_ends(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if self.name is None and options.get(b"name") == FIELD.encode() and b"filename" in options:
            self.name = _shown(options[b"filename"])
            self._inside = True

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.extend(data[start:end])

    def _part_ends(self) -> None:
        self._inside = False

    def _ends(self) -> None:
        self.body_ended = True


def _shown(raw: bytes) -> str:
    # Some clients send a whole path; ntpath cuts at both kinds of slashes.
    name = ntpath.basename(raw.decode("utf-8", "surrogateescape"))
    return show(name[:_LONGEST_NAME]) or "the file"
