"""Requests of a page that reads and changes things: JSON in, JSON out, and a token.

The token is in the address that the command prints, behind `#`, so that it is never sent as
part of an address, and stays out of logs and referrers. The page sends it in a header of its
own, which no other site can make a browser send here; requests that say they come from another
site are refused all the same. Requests are limited in size and time.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from unfreeze.errors import UnfreezeError
from unfreeze.serve.answers import Refused
from unfreeze.serve.web_app import host_of

#: The header that holds the token.
TOKEN_HEADER = "X-Unfreeze-Token"
#: What to do about a request that no page of ours sends.
RELOAD = "Load the page again."
# Bytes of a request, characters of a text in it, and seconds to send it.
_MOST_BYTES, _MOST_TEXT, _MOST_SECONDS = 16_384, 200, 30.0

#: Does what a request asks for; runs in a thread.
Work = Callable[[dict[str, Any]], dict[str, Any] | Response]


class _Plain(JSONResponse):
    """An answer in ASCII: folders may have names that are not UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def json_route(work: Work, token: str, command: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers requests that send a JSON object and the token.

    Args:
        work: does what is asked; an `UnfreezeError` is answered with status 422.
        token: that requests must bring.
        command: that printed the address with the token.
    """

    async def answer(request: Request) -> Response:
        admit(request, token, command)
        content = await _body(request)
        try:
            # Reading sounds and flushing to disk take a while.
            found = await asyncio.to_thread(work, _parsed(content))
        except Refused as refused:
            return _refusal(refused)
        except UnfreezeError as error:
            return _refusal(Refused(422, str(error), "Change it and try again."))
        return found if isinstance(found, Response) else _Plain(found)

    return answer


def _refusal(refused: Refused) -> Response:
    # The request has been read to its end: nothing is left to wait for, as a refusal else does.
    return _Plain(refused.content(), status_code=refused.status)


def admit(request: Request, token: str, command: str) -> None:
    """Refuse a request without the token, or from a page of another site.

    Raises:
        Refused: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and _site(origin) != host_of(request.scope):
        raise Refused(403, "the request comes from another site", "Open the page itself.")
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode(), token.encode()):
        cure = f"Open the whole address that `{command}` printed, with what is behind the #."
        raise Refused(403, "the token is missing or wrong", cure)


def text_in(asked: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text that was sent.

    Raises:
        Refused: it is none, or too long (422).
    """
    value = asked.get(name, default)
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise Refused(422, f"{name} must be a text of at most {_MOST_TEXT} characters", RELOAD)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(422, f"{name} has half of a character", RELOAD) from None
    return value


def number_in(asked: dict[str, Any], name: str) -> int:
    """A whole number that was sent.

    Raises:
        Refused: it is none (422).
    """
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(422, f"{name} must be a whole number", RELOAD)
    return value


def _site(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _body(request: Request) -> bytes:
    """What a request sends.

    Raises:
        Refused: it is too large (413), or arrives too slowly (408).
    """
    content = b""
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > _MOST_BYTES:
                    raise Refused(413, f"a request has at most {_MOST_BYTES} bytes", RELOAD)
    except TimeoutError:
        cause = f"the request did not arrive in {_MOST_SECONDS:g} s"
        raise Refused(408, cause, "Try again.") from None
    return content


def _parsed(content: bytes) -> dict[str, Any]:
    """The JSON object that a request sent.

    Raises:
        Refused: it is none (422).
    """
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(422, "the request is no JSON object", RELOAD)
    return found
