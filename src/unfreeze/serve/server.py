"""The HTTP server; its socket is bound before anything slow, to report a used port at once."""

import errno
import ipaddress
import os
import socket
from typing import Any

from unfreeze.errors import UnfreezeError


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address and a port.

    Args:
        host: a name or an address; the first address that it resolves to is used.
        port: 0 to 65535; 0 chooses a free one.

    Raises:
        UnfreezeError: there is no such host or address, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
    except OSError as error:
        raise UnfreezeError(
            f"--host {host}: no such host or address ({error.strerror}); give 127.0.0.1 for "
            "this machine only, or 0.0.0.0 for all its addresses"
        ) from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        # Otherwise the port stays in use for a minute after a server has ended. On
        # Windows the same option would let two servers share a port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        # Only listening keeps out others that bind with SO_REUSEADDR.
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise UnfreezeError(_explain(error, host, port)) from None
    return bound


def address_of(bound: socket.socket) -> tuple[str, int]:
    """Return the address and the port of a bound socket."""
    host, port = bound.getsockname()[:2]
    return str(host), int(port)


def is_loopback(bound: socket.socket) -> bool:
    """Return whether only this machine can reach a bound socket."""
    return ipaddress.ip_address(address_of(bound)[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = address_of(bound)
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: Any) -> Any:
    """Make the HTTP server of an application; its `run(sockets=[bound])` serves until stopped.

    On Ctrl-C it finishes running requests, for at most 10 seconds.

    Args:
        app: an ASGI application.

    Returns:
        A `uvicorn.Server`.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use by another program: stop that program, or use "
            f"another port, such as --port {port + 1 if port < 65535 else 8000}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} is reserved for the system: choose one above 1023 with --port"
    return f"Port {port} of {host} cannot be used: {error.strerror}"
