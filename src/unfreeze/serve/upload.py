"""One file out of a multipart body (RFC 7578), written to disk as it arrives.

Size and time are limited while the body is read, so a body without end costs no
more than the limit. The client's name for the file is text to show: the file on
disk lies under a random name of ours, which only the server's user may open.
"""

import asyncio
import ntpath
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from unfreeze.audio.names import show
from unfreeze.serve.limits import Limits
from unfreeze.serve.refusals import Refused

FIELD = "file"
_SEND = f"Send the file as the part `{FIELD}` of a form: curl -F {FIELD}=@SOUND.wav URL."
# Boundaries, headers of the parts, small other fields.
_OVERHEAD = 64 * 1024
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """A received file.

    Attributes:
        path: where it lies, until the block that received it ends.
        name: what the client calls it, made printable; never a path of ours.
    """

    path: Path
    name: str


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[Upload]:
    """Receive a request's file; it is removed when the block ends, however it ends.

    Args:
        request: a POST whose body has not been read.
        limits: of size and time.

    Yields:
        The file.

    Raises:
        Refused: no such form (400, 415, 422), too large (413), too slow (408),
            or the disk is full (507).
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
            # An OSError too, but not the disk's.
            raise
        except OSError as error:
            cause = f"the server cannot store the file ({error.strerror})"
            raise Refused(507, cause, "Try again later, or tell who runs it.") from None
    if not part.body_ended:
        raise Refused(400, "the form ends before its last boundary", "Send it again.")
    if part.name is None:
        raise Refused(422, f"the form has no file named `{FIELD}`", _SEND)
    return part.name


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refused(415, "the body is no form (multipart/form-data)", _SEND)
    if not options.get(b"boundary"):
        raise Refused(400, "the form's header names no boundary", _SEND)
    return bytes(options[b"boundary"])


def _too_large(limits: Limits, name: str | None) -> Refused:
    cause = f"it is larger than {limits.max_mb:g} MB, the limit of this server"
    return Refused(413, cause, "Send a part of it, or as FLAC or MP3.", file=name or "the file")


class _FilePart:
    """Picks the first part with the right name and a file name out of the parser's calls.

    Attributes:
        name: the file's name, None while no such part has begun.
        body_ended: the last boundary has been seen.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.body_ended = False
        self._inside = False
        self._field, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        """What the parser is to call."""
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
        """Return what has come of the file since the last call."""
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
    # Some clients send a whole path; both kinds of slashes are cut by ntpath.
    name = ntpath.basename(raw.decode("utf-8", "surrogateescape"))
    return show(name[:_LONGEST_NAME]) or "the file"
