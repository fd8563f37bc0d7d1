import io
from functools import partial

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from starlette.testclient import TestClient  # noqa: E402

from unfreeze.serve.json_requests import TOKEN_HEADER, admit  # noqa: E402
from unfreeze.serve.web_app import create_app, names_this_machine  # noqa: E402

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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({TOKEN_HEADER: "a-tokem"}, 403),
        ({TOKEN_HEADER: "a-token", "Origin": "http://evil.example"}, 403),
        ({TOKEN_HEADER: "a-token", "Origin": "http://127.0.0.1:8000"}, 200),
        ({TOKEN_HEADER: "a-token"}, 200),
    ],
)
def test_a_server_with_a_token_tells_nothing_without_it(classifier, headers, status, no_lingering):
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(8_000), 16_000, format="WAV")
    app = create_app(classifier, admit=partial(admit, token="a-token", command="unfreeze serve"))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        told = client.get("/labels", headers=headers)
        heard = client.post("/predict", files={"file": sound.getvalue()}, headers=headers)
        assert (told.status_code, heard.status_code) == (status, status)
        if status == 403:
            assert heard.json().keys() == {"detail", "file", "cause", "cure"}
        # The page asks with what is behind the # of its address.
        assert client.get("/").status_code == client.get("/healthz").status_code == 200
