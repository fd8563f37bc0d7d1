import pytest

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from unfreeze.serve.web_app import names_this_machine  # noqa: E402

OWN = [
    "localhost",
    "LOCALHOST:8000",
    "127.0.0.1:1",
    "127.9.9.9",
    "[::1]",
    "[::1]:8000",
    "localhost.",
]
FOREIGN = [
    "", "evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1",
    "[::1", "[::1]x", "0.0.0.0:8000", "evil.example:127.0.0.1", "[fe80::1]:80", "localhost@evil",
]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_own_names(host):
    assert names_this_machine(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names(host):
    assert not names_this_machine(host)


@pytest.mark.parametrize("path", ["/", "/labels", "/predict"])
def test_a_request_by_a_foreign_name_is_refused_on_loopback(url, path):
    answer = httpx.get(url + path, headers={"Host": "evil.example:8000"})
    assert answer.status_code == 400
    assert "another host" in answer.json()["cause"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{url}/labels", headers={"Host": "localhost"}).status_code == 200


def test_a_server_for_others_takes_any_name(serve, classifier):
    with serve(classifier, local_only=False) as url:
        answer = httpx.get(f"{url}/labels", headers={"Host": "sounds.example"})
        assert answer.status_code == 200
