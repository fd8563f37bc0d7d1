import contextlib
import io
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
httpx = pytest.importorskip("httpx")

from serving import running  # noqa: E402
from unfreeze.serve.upload import Limits  # noqa: E402

HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def small(classifier):
    """A server that takes a megabyte and ten seconds."""
    with running(classifier, Limits(max_mb=1, max_seconds=10)) as address:
        yield address


def post(url, content, headers=FORM):
    return httpx.post(f"{url}/predict", content=content, headers=headers, timeout=30)


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def size(folder):
    """The bytes in a folder's folders, from which a server may remove anything meanwhile."""
    total = 0
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += (entry / "upload").stat().st_size
    return total


def request_head(url, length):
    return (
        f"POST /predict HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    ).encode()


def test_a_size_that_is_announced_is_refused_before_the_body(small, uploads):
    with connect(small) as connection:
        connection.sendall(request_head(small, 10**10))
        began = time.monotonic()
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 10
    assert list(uploads.iterdir()) == []


def test_a_size_that_is_not_announced_is_refused_while_it_comes(small, uploads):
    sent = stored = 0

    def endless():
        nonlocal sent, stored
        yield HEAD
        for _ in range(10_000):  # 10 GB
            sent += 10**6
            stored = max(stored, size(uploads))
            yield b"\0" * 10**6

    answer = post(small, endless())
    assert answer.status_code == 413
    body = answer.json()
    assert body["file"] == "a.wav"
    assert "larger than 1 MB" in body["cause"]
    assert answer.headers["connection"] == "close"
    # What a machine sends in the two seconds for which the server reads on.
    assert sent < 9 * 10**9
    assert stored <= 10**6
    assert list(uploads.iterdir()) == []


def test_the_limit_is_that_of_the_file_and_exact(small):
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(16_000), 16_000, format="WAV")
    for size, status in ((1_000_000, 200), (1_000_001, 413)):
        content = sound.getvalue().ljust(size, b"\0")
        answer = httpx.post(f"{small}/predict", files={"file": ("a.wav", content)}, timeout=30)
        assert answer.status_code == status


def test_an_endless_other_field_is_refused_too(small):
    field = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n' + b"a" * 2_000_000
    assert post(small, iter([field])).status_code == 413


@pytest.mark.parametrize(
    ("headers", "body", "status", "cause"),
    [
        ({"Content-Type": "audio/wav"}, b"RIFF", 415, "not a form"),
        ({"Content-Type": "multipart/form-data"}, b"", 400, "no boundary"),
        ({"Content-Type": f"multipart/form-data; boundary={'x' * 999}"}, b"", 400, "read"),
        (FORM, b"--y\r\n", 400, "read"),
        (FORM, HEAD + b"RIFF", 400, "ends before"),
        (FORM, b"", 400, "ends before"),
        (FORM, HEAD.replace(b'"file"', b'"sound"') + b"\r\n--x--\r\n", 422, "named `file`"),
        (FORM, HEAD.replace(b'; filename="a.wav"', b"") + b"\r\n--x--\r\n", 422, "named `file`"),
        (FORM, b"--x\r\n" + b"A: b\r\n" * 2000, 400, "read"),
        (FORM, b"--x\r\nContent-Disposition: " + b"a" * 99_000, 400, "read"),
    ],
)
def test_a_form_that_is_none_is_refused_with_the_cure(small, headers, body, status, cause):
    answer = post(small, body, headers)
    assert answer.status_code == status
    assert cause in answer.json()["cause"]
    assert answer.json()["cure"]


def test_of_several_parts_the_file_is_taken(small, two_sounds):
    files = [
        ("note", (None, "file")),
        ("other", ("b.wav", b"not this")),
        ("file", ("a.wav", two_sounds.read_bytes())),
        ("file", ("c.wav", b"nor this")),
    ]
    answer = httpx.post(f"{small}/predict", files=files, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["file"] == "a.wav"


@pytest.mark.parametrize("limits", [Limits(stall_seconds=0.5), Limits(upload_seconds=0.5)])
def test_who_sends_nothing_for_long_is_let_go(classifier, uploads, limits):
    with running(classifier, limits) as url, connect(url) as connection:
        connection.sendall(request_head(url, 5000) + HEAD + b"RIFF")
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert list(uploads.iterdir()) == []


def test_who_breaks_off_leaves_nothing_behind(small, uploads):
    with connect(small) as connection:
        connection.sendall(request_head(small, 50_000) + HEAD + b"RIFF" * 1000)
        deadline = time.monotonic() + 30
        while not list(uploads.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(list(uploads.iterdir())) == 1
    deadline = time.monotonic() + 30
    while list(uploads.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(uploads.iterdir()) == []
    assert httpx.get(f"{small}/healthz").json()["waiting"] == 0


def test_hours_in_a_small_file_are_refused_by_their_length(small, tmp_path):
    path = tmp_path / "silence.flac"
    minute = np.zeros(60 * 8000, np.int16)
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(180):
            file.write(minute)
    assert path.stat().st_size < 10**6
    answer = httpx.post(f"{small}/predict", files={"file": path.open("rb")}, timeout=30)
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("silence.flac: it is longer than 10 s")
