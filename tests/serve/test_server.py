import socket

import pytest

from unfreeze.errors import UnfreezeError
from unfreeze.serve import server


def test_a_taken_port_is_said_with_the_cure():
    with server.bind("127.0.0.1", 0) as first:
        port = server.address_of(first)[1]
        with pytest.raises(UnfreezeError, match=rf"Port {port} .*in use.*--port {port + 1}"):
            server.bind("127.0.0.1", port)


def test_a_port_is_free_again_at_once():
    with server.bind("127.0.0.1", 0) as first:
        port = server.address_of(first)[1]
        with socket.create_connection(("127.0.0.1", port)):
            first.accept()[0].close()
    server.bind("127.0.0.1", port).close()


def test_an_unknown_host_is_said_with_the_cure():
    with pytest.raises(UnfreezeError, match="no such host"):
        server.bind("no-such-host.invalid", 8000)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(UnfreezeError, match="cannot be used"):
        server.bind("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("host", "loopback", "start"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:"),
        ("localhost", True, "http://"),
        ("0.0.0.0", False, "http://127.0.0.1:"),
    ],
)
def test_which_sockets_others_can_reach(host, loopback, start):
    with server.bind(host, 0) as bound:
        assert server.is_loopback(bound) is loopback
        assert server.url_of(bound).startswith(start)


def test_version_six():
    try:
        bound = server.bind("::1", 0)
    except UnfreezeError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert server.is_loopback(bound)
        assert server.url_of(bound).startswith("http://[::1]:")
