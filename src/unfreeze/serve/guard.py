"""What holds for every answer: security headers, and no foreign host names.

A page of some other site can make a browser call this server by a host name of
its own that resolves to 127.0.0.1 (DNS rebinding); the browser would then let
that page read the answers. Such a request carries the foreign name in `Host`.
"""

import ipaddress
from typing import Any

from unfreeze.serve.refusals import RefusalResponse, Refused

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    # Answers hold people's recordings' contents; the page is small.
    "Cache-Control": "no-store",
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


def guarded(app: Any, *, local_only: bool) -> Any:
    """Wrap an ASGI application.

    Args:
        app: the application.
        local_only: refuse requests whose `Host` is not this machine's own name
            for itself (`localhost` or a loopback address).

    Returns:
        An ASGI application.
    """

    async def run(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_RAW]}
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
        elif local_only and not names_this_machine(_host(scope)):
            refused = Refused(
                400,
                "the request is for another host than this machine",
                "Open the server as http://127.0.0.1 or http://localhost with its port.",
            )
            await RefusalResponse(refused)(scope, receive, send_with_headers)
        else:
            await app(scope, receive, send_with_headers)

    return run


def names_this_machine(host: str) -> bool:
    """Tell whether a `Host` header is a machine's own name for itself.

    Args:
        host: name or address, with or without a port.

    Example:
        >>> [names_this_machine(h) for h in ("localhost:8000", "[::1]:80", "evil.example")]
        [True, True, False]
    """
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return False
    else:
        name = host.partition(":")[0]
    if name.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host(scope: Any) -> str:
    values = [value for name, value in scope["headers"] if name == b"host"]
    return values[0].decode("latin-1") if len(values) == 1 else ""
