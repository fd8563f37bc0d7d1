"""Refusals: which file, what is wrong with it, and what to do, as JSON with a status."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

# What is still being sent is read for so long after the answer: most clients
# look for an answer only when they have sent all.
_LINGER_SECONDS = 2.0


class Refused(Exception):
    """A request that is not done, through no fault of the server.

    Args:
        status: HTTP status, 400 to 599.
        cause: a clause: what is wrong.
        cure: a sentence: what to do.
        file: name of the file as the client gave it, made printable.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        cause: str,
        cure: str,
        *,
        file: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cause)
        self.status, self.cause, self.cure, self.file = status, cause, cure, file
        self.headers = dict(headers or {})

    def content(self) -> dict[str, str | None]:
        """The answer's body; `detail` is all of it in one text."""
        start = f"{self.file}: {self.cause}" if self.file else self.cause
        return {
            "detail": f"{start}. {self.cure}",
            "file": self.file,
            "cause": self.cause,
            "cure": self.cure,
        }


class RefusalResponse(JSONResponse):
    """Answers before the request has been read, and then closes the connection.

    The whole answer is on its way before the rest of the request is thrown
    away, for a short time: closing at once would reset the connection, and a
    client that is still sending would never see the answer.
    """

    def __init__(self, refused: Refused) -> None:
        headers = {**refused.headers, "Connection": "close"}
        super().__init__(refused.content(), status_code=refused.status, headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the answer, read on for a moment, end."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while (message := await receive()).get("more_body", False):
                    del message
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
