"""The answers of the studio's server, and who gets none."""

import shlex
import sys
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

import toy
from fake_train import FAKE
from unfreeze.pipeline import run_folder
from unfreeze.serve.json_requests import TOKEN_HEADER
from unfreeze.serve.studio_app import Studio, create_studio_app
from unfreeze.serve.studio_folder import open_folder

TOKEN = "a-token"
HEADERS = {TOKEN_HEADER: TOKEN}
EVERYTHING = (
    *("about", "state", "browse", "plan", "inspect", "train", "stop", "resume"),
    *("export", "listen", "commands", "upload"),
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGTERM")
links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def studio(tmp_path):
    toy.write_sounds(tmp_path / "lab" / "tones", clips=4, classes=("high", "low"))
    (tmp_path / "lab" / "tones" / "low" / "broken.wav").write_bytes(b"no sound")
    made = Studio(open_folder(tmp_path / "lab"), max_mb=0.2, program=FAKE)
    yield made
    made.close()


@pytest.fixture
def client(studio, no_lingering):
    app = create_studio_app(studio, TOKEN)
    with TestClient(app, base_url="http://127.0.0.1:8002") as made:
        yield made


@pytest.fixture
def ask(client):
    def ask(what, status=200, **content):
        answer = client.post(f"/studio/{what}", json=content, headers=HEADERS)
        assert answer.status_code == status, answer.text
        return answer.json()

    return ask


@pytest.fixture
def send(client):
    def send(content, name, status=200, folder="tones", label="owl", **more):
        answer = client.post(
            "/studio/upload", params={"folder": folder, "label": label},
            files={"file": (name, content)}, headers={**HEADERS, **more},
        )  # fmt: skip
        assert answer.status_code == status, answer.text
        return answer.json()

    return send


def ended(ask):
    deadline = time.monotonic() + 60
    while (found := ask("state")["training"])["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def files_in(studio):
    return sorted(str(p.relative_to(studio.folder.root)) for p in studio.folder.root.rglob("*"))


def test_what_inspect_sees_is_answered(ask):
    about = ask("about")
    assert about["folder"].endswith("/lab")
    assert about["command"].endswith("/lab")
    assert about["tables"] == [".csv", ".tsv", ".txt"]
    assert ask("browse")["folders"][0]["path"] == "tones"
    # More than a tenth of the files are unusable.
    found = ask("inspect", data="tones", options={"test": 0.25})
    assert found["seen"]["clips"] == 8
    assert found["seen"]["bad"] == 1
    assert found["seen"]["problems"][0]["path"] == "low/broken.wav"
    assert found["seen"]["split"]["test"].keys() == {"clips", "groups"}
    assert "1 of 9" in found["cause"]
    words = shlex.split(found["command"])
    assert words[:2] == ["unfreeze", "inspect"]
    assert words[-2:] == ["--test", "0.25"] or "--test" in words
    assert "no class folders" in ask("inspect", 422, data="tones/high", options={})["detail"]


def test_a_training_is_started_watched_stopped_and_resumed(ask, studio, monkeypatch, client):
    chosen = {"data": "tones", "name": "one", "options": {"schedule": "probe", "seed": 4}}
    plan = ask("plan", **chosen)
    assert plan["problem"] is None
    assert plan["train"].startswith(f"unfreeze train {studio.folder.root}/tones --schedule probe ")
    assert ask("train", **chosen) == {"name": "one"}
    # A second tab sees the same, and starts no second one.
    with TestClient(create_studio_app(studio, TOKEN), base_url="http://localhost") as other:
        seen = other.post("/studio/state", json={}, headers=HEADERS).json()["training"]
        assert (seen["name"], seen["state"]) == ("one", "running")
        refused = other.post("/studio/train", json={**chosen, "name": "two"}, headers=HEADERS)
        assert refused.status_code == 422
        assert "one at a time" in refused.json()["cause"]
    deadline = time.monotonic() + 60
    while not ask("state")["training"].get("rows"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "already" in ask("plan", **chosen)["problem"]
    ask("stop", name="one")
    assert ended(ask)["state"] == "interrupted"
    (run,) = ask("state")["runs"]
    assert (run["name"], run["state"], run["command"]) == ("one", "interrupted", plan["train"])
    assert "already" in ask("train", 422, **chosen)["cause"]
    again = ask("commands", name="one")["resume"]
    assert again == f"{plan['train']} --resume"
    monkeypatch.setenv("FAKE_EPOCHS", "1")
    ask("resume", name="one")
    assert ended(ask)["state"] == "finished"
    (run,) = ask("state")["runs"]
    assert (run["state"], run["value"]) == ("finished", 0.875)
    assert ask("commands", name="one").keys() == {"listen", "export", "report"}
    assert "nothing to resume" in ask("resume", 422, name="one")["cause"]
    # The report: without the rights of this site, and only by its own address.
    report = client.get(f"/{run['report']}")
    assert "a report" in report.text
    policies = report.headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert policies[0].startswith("sandbox allow-scripts; default-src 'none'")
    assert "connect-src" not in policies[0]
    place, _, key = run["report"].partition("?key=")
    assert TOKEN not in key
    for wrong in ("", key[:-1], key[::-1], "é"):
        assert client.get(f"/{place}", params={"key": wrong}).status_code == 403
    assert client.get("/report/two", params={"key": key}).status_code == 403
    (studio.folder.runs / "one" / "report.html").unlink()
    assert client.get(f"/{run['report']}").status_code == 404


@pytest.mark.parametrize("token", [None, "", "a-tokem", "á"])
def test_without_the_token_nothing_is_read_or_changed(client, studio, token):
    headers = {} if token is None else {TOKEN_HEADER: token.encode()}
    before = files_in(studio)
    for what in EVERYTHING:
        answer = client.post(f"/studio/{what}", json={}, headers=headers)
        assert answer.status_code == 403, what
        assert "`unfreeze studio` printed" in answer.json()["cure"]
    assert files_in(studio) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://127.0.0.1:8002"}, 200),
        ({"Host": "evil.example"}, 400),
    ],
)
def test_requests_of_other_sites_and_for_other_hosts_are_refused(client, send, headers, status):
    answer = client.post("/studio/state", json={}, headers={**HEADERS, **headers})
    assert answer.status_code == status
    send(b"", "a.wav", 422 if status == 200 else status, **headers)


@pytest.mark.parametrize(
    ("what", "content", "words"),
    [
        ("browse", {"path": "../.."}, "is not in"),
        ("browse", {"path": "/etc"}, "is not in"),
        ("browse", {"path": "tones/high/high_0.wav"}, "is not a folder"),
        ("browse", {"path": 3}, "must be a text"),
        ("browse", {"path": "x" * 300}, "at most 200"),
        ("inspect", {"data": "../lab/tones"}, "is not in"),
        ("inspect", {"data": "tones", "options": []}, "must be an object"),
        ("plan", {"data": "tones", "name": "../x"}, "cannot be the name"),
        ("train", {"data": "/etc", "name": "one"}, "is not in"),
        ("train", {"data": "tones", "name": ".."}, "cannot be the name"),
        ("train", {"data": "tones", "name": "one", "options": {"weights": "/x"}}, "no option"),
        ("train", {"data": "tones", "name": "one", "options": {"epochs": -1}}, "at least 0"),
        ("train", {"data": "", "name": "one"}, "holds the runs"),
        ("train", {"data": "tones/high", "name": "one"}, "no class folders"),
        ("stop", {"name": "one"}, "no training of one"),
        ("resume", {"name": "../tones"}, "cannot be the name"),
        ("resume", {"name": "one"}, "no run one"),
        ("listen", {"name": "one"}, "no run one"),
        ("export", {"name": "one", "format": "onnx"}, "no run one"),
        ("commands", {"name": "../../etc"}, "cannot be the name"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_cause(ask, studio, what, content, words):
    before = files_in(studio)
    assert words in ask(what, 422, **content)["detail"]
    assert files_in(studio) == before


def test_formats_and_runs_of_an_export_are_checked(ask, studio):
    run = studio.folder.runs / "one"
    run_folder.write_config(run, {"command": "c"})
    assert "not finished" in ask("export", 422, name="one", format="onnx")["cause"]
    run_folder.write_scores(run, {})
    assert "is no format" in ask("export", 422, name="one", format="../x")["cause"]


def test_dropped_files_are_kept_if_they_are_sound(send, studio, tmp_path):
    content = (studio.folder.root / "tones" / "high" / "high_0.wav").read_bytes()
    told = send(content, "call.wav")
    assert (told["kept"], told["new"]) == ("tones/owl/call.wav", True)
    assert (studio.folder.root / "tones" / "owl" / "call.wav").read_bytes() == content
    assert send(content, "C:\\music\\call.wav") == {**told, "new": False}
    assert send(content, "../../../call.wav") == {**told, "new": False}
    assert send(content[:-200], "call.wav")["kept"] == "tones/owl/call 2.wav"
    assert send(content, "a.wav", folder="new/set", label="high")["kept"] == "new/set/high/a.wav"


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("a.wav", b"", 422, "0 bytes"),
        ("a.wav", b"<html>" * 99, 422, "web page"),
        ("a.wav", b"RIFF\xff\xff\xff\xffWAVEfmt ", 422, "a.wav"),
        ("a.html", b"<script>", 422, "not that of a sound file"),
        ("a.csv", b"path,label\nowl/none.wav,owl\n", 422, "is not there"),
        ("a.csv", b"path,label\n../../../secret.wav,owl\n", 422, "is outside of"),
        ("a.csv", b"path,label\n/etc/hosts,owl\n", 422, "is outside of"),
        ("a.csv", b"\0\0\0", 422, "a.csv"),
        ("a.csv", b"", 422, "a.csv"),
        ("a.csv", b"path,weight\nhigh_0.wav,3\n", 422, "a.csv"),
        ("a.txt", b"0.0\t0.5\towl\n", 422, "no recording is named a"),
        ("a.csv", b"x" * 400_000, 413, "larger than 0.2 MB"),
        ("run.py", b"import os", 422, "not that of a sound file"),
        ("a.wav", b"x" * 400_000, 413, "larger than 0.2 MB"),
    ],
)
def test_other_files_are_not_kept(send, studio, name, content, status, words):
    before = files_in(studio)
    told = send(content, name, status, label="high")["detail"]
    assert words in told
    # Where the server keeps what it receives is not told.
    assert "/unfreeze-" not in told
    assert files_in(studio) == before


def test_a_dropped_table_of_labels_is_kept_where_it_can_be_read(ask, send, studio):
    tones = studio.folder.root / "tones"
    table = b"path,label,start,end\nhigh/high_0.wav,high,0,0.4\nlow/low_0.wav,low,0,0.4\n"
    told = send(table, "calls.csv", label="")
    assert told == {"kept": "tones/calls.csv", "new": True, "labels": 2}
    assert (tones / "calls.csv").read_bytes() == table
    assert not send(table, "..\\calls.csv", label="")["new"]
    other = send(table.replace(b"0.4", b"0.3"), "calls.csv", 422, label="")
    assert "has another calls.csv: give yours another name" in other["cause"]
    assert (tones / "calls.csv").read_bytes() == table
    whole = {"validation": 0, "test": 0}
    assert ask("inspect", data="tones/calls.csv", options=whole)["seen"]["clips"] == 2
    # Of the recording that it is named after.
    raven = b"Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0.1\t0.3\thigh\n"
    name = "high_1.Table.1.selections.txt"
    assert send(raven, name, label="high")["kept"] == f"tones/high/{name}"
    assert send(b"0.1\t0.3\thigh\n", "high_2.txt", label="high")["labels"] == 1


@links
def test_a_dropped_table_that_a_link_leads_out_of_is_refused(send, studio, tmp_path):
    (tmp_path / "far.wav").write_bytes(b"x")
    (studio.folder.root / "tones" / "far.wav").symlink_to(tmp_path / "far.wav")
    told = send(b"path,label\nfar.wav,high\n", "a.csv", 422, label="")
    assert "is outside of" in told["cause"]


def test_a_recording_needs_a_class_and_a_table_a_folder(ask, send, studio):
    content = (studio.folder.root / "tones" / "high" / "high_0.wav").read_bytes()
    before = files_in(studio)
    assert "class of the recording is missing" in send(content, "a.wav", 422, label="")["cause"]
    assert "holds the runs" in send(b"path,label\n", "a.csv", 422, folder="", label="")["cause"]
    told = send(b"x", "a.csv", 422, folder="new", label="")["detail"]
    assert told.endswith("add the recordings first. Then drop the file again.")
    # A cause that is a whole sentence ends once.
    few = ask("inspect", 422, data="tones/high", options={})["detail"]
    assert few.endswith(" Change it and try again.")
    assert ".." not in few
    assert files_in(studio) == before


@pytest.mark.parametrize(
    ("folder", "label"), [("..", "owl"), ("/tmp", "owl"), ("tones", "../.."), ("runs", "owl")]
)
def test_dropped_files_go_nowhere_else(send, studio, folder, label):
    content = (studio.folder.root / "tones" / "high" / "high_0.wav").read_bytes()
    before = files_in(studio)
    send(content, "a.wav", 422, folder=folder, label=label)
    assert files_in(studio) == before
    assert not (studio.folder.root.parent / "owl").exists()


def test_the_page_and_its_headers(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("studio.js", "studio_run.js", "studio_ask.js", "studio.css", "style.css"):
        assert client.get(f"/page/{name}").status_code == 200
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404
    assert client.get("/page/../../../pyproject.toml").status_code == 404
    assert client.get("/studio/state").status_code == 405


def test_large_and_damaged_requests_are_refused(client):
    large = client.post("/studio/browse", content=b'{"path": "' + b"x" * 50_000, headers=HEADERS)
    assert large.status_code == 413
    for content in (b"[1]", b"{", b"[" * 10_000, b"\xff", b'{"path": "\\ud800"}'):
        answer = client.post("/studio/browse", content=content, headers=HEADERS)
        assert answer.status_code == 422


def test_only_two_look_at_data_at_once(ask, studio):
    for _ in range(2):
        assert studio._looks.acquire(blocking=False)
    assert "Try again" in ask("inspect", 503, data="tones", options={})["detail"]
    for _ in range(2):
        studio._looks.release()
