"""The answers of a review's server, and who gets none."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from faults import no_large_files
from reviewing import LENGTH, label_of
from unfreeze.review.review_session import ReviewSession
from unfreeze.search.embedding import embed
from unfreeze.search.index_folder import open_index
from unfreeze.serve.json_requests import TOKEN_HEADER
from unfreeze.serve.review_app import create_review_app

TOKEN = "a-token"


@pytest.fixture
def client(session, no_lingering):
    app = create_review_app(session, TOKEN)
    with TestClient(app, base_url="http://127.0.0.1:8001") as made:
        yield made


@pytest.fixture
def ask(client):
    def ask(what, status=200, **content):
        answer = client.post(
            f"/review/{what}", json={"tab": "a", **content}, headers={TOKEN_HEADER: TOKEN}
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    return ask


def test_a_clip_is_asked_and_the_answer_kept(ask, session, reviewed):
    question = ask("next", order="uncertain")["question"]
    assert question["picture"].startswith("data:image/png;base64,")
    assert question["sound"].startswith("data:audio/")
    assert question["recording"].startswith("field-")
    assert "/" not in question["recording"]
    best = max(question["likeliest"], key=lambda one: one[1])
    assert question["likeliest"][0] == best
    said = ask("decide", clip=question["clip"], answer="yes", asked=question["asked"])
    assert said["decision"]["label"] == question["asked"]
    assert len(session.store.decisions()) == 1
    state = ask("state")
    assert state["counts"]["answers"] == {"yes": 1}
    assert (state["known"], state["background"], state["several"]) == (["high", "low"], True, False)
    assert ask("undo")["question"]["clip"] == question["clip"]
    assert ask("undo")["question"] is None


def test_another_tab_is_told_what_was_decided(ask):
    clip = ask("next", order="uncertain")["question"]["clip"]
    ask("decide", clip=clip, answer="other", label="owl", asked="high")
    told = ask("decide", 409, tab="b", clip=clip, answer="yes", asked="high")
    assert told["taken"] == {"number": 1, "answer": "other", "label": "owl", "asked": "high"}
    assert "owl" in told["detail"]
    ask("decide", tab="b", clip=clip, answer="yes", asked="high", replace=True)
    assert ask("state")["counts"]["labels"] == {"high": 1}


def test_the_count_is_in_the_state(ask, reviewed, session):
    for _ in range(12):
        question = session.next("a", "sample", "high")
        said = "yes" if label_of(reviewed[1], question) == "high" else "no"
        ask("decide", clip=question.clip, answer=said, asked="high", order="sample")
    density = ask("state", label="high")["density"]
    assert density["known"] == 12
    assert density["low"] <= density["estimate"] <= density["high"]
    assert ask("state")["density"] is None


def test_labels_are_written_where_the_review_is(ask, session):
    clip = ask("next", order="uncertain")["question"]["clip"]
    ask("decide", clip=clip, answer="yes", asked="high")
    for kind in ("csv", "raven", "folders"):
        told = ask("export", kind=kind)
        assert told["clips"] == 1
        assert told["place"].startswith(str(session.folder))
    ask("export", 422, kind="../elsewhere")


@pytest.mark.parametrize("token", [None, "", "a-tokem", "á"])
def test_without_the_token_nothing_is_read_or_changed(client, session, token):
    headers = {} if token is None else {TOKEN_HEADER: token.encode()}
    for what in ("state", "next", "decide", "undo", "train", "write", "export"):
        answer = client.post(f"/review/{what}", json={}, headers=headers)
        assert answer.status_code == 403
        assert "#" in answer.json()["cure"]
    assert session.store.history() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://127.0.0.1:8001"}, 200),
        ({"Host": "evil.example"}, 400),
    ],
)
def test_requests_of_other_sites_and_for_other_hosts_are_refused(client, headers, status):
    answer = client.post("/review/state", json={}, headers={TOKEN_HEADER: TOKEN, **headers})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("what", "content", "words"),
    [
        ("next", {"order": "best"}, "is no order"),
        ("next", {"order": 3}, "order must be a text"),
        ("next", {"order": "uncertain", "label": "x" * 300}, "at most 200"),
        ("decide", {"clip": "../../etc/passwd", "answer": "yes", "asked": "high"}, "whole number"),
        ("decide", {"clip": True, "answer": "yes", "asked": "high"}, "whole number"),
        ("decide", {"clip": -1, "answer": "yes", "asked": "high"}, "no clip -1"),
        ("decide", {"clip": 10**9, "answer": "yes", "asked": "high"}, "no clip"),
        ("decide", {"clip": 0, "answer": "maybe", "asked": "high"}, "is no answer"),
        ("decide", {"clip": 0, "answer": "other", "asked": "high", "label": "a;b"}, "several"),
        ("train", {}, "at least 12"),
        ("write", {}, "train again first"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_cause(ask, session, what, content, words):
    assert words in ask(what, 422, **content)["detail"]
    assert session.store.history() == []


def test_large_and_damaged_requests_are_refused(client):
    headers = {TOKEN_HEADER: TOKEN}
    large = client.post("/review/next", content=b'{"order": "' + b"x" * 50_000, headers=headers)
    assert large.status_code == 413
    for content in (b"[1]", b"{", b"[" * 10_000, b"\xff"):
        answer = client.post("/review/next", content=content, headers=headers)
        assert answer.status_code == 422


def test_the_page_and_its_headers(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "img-src 'self' data:" in policy
    assert "unsafe" not in policy
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404
    assert client.get("/page/../../../pyproject.toml").status_code == 404
    assert client.get("/review/state").status_code == 405


def test_a_clip_whose_recording_is_gone_is_said(reviewed, tmp_path):
    folder, _ = reviewed
    (tmp_path / "field").mkdir()
    moved = shutil.copy(folder / "field" / "field-0.wav", tmp_path / "field")
    index = embed([Path(moved)], tmp_path / "index", run=folder / "run")
    Path(moved).unlink()
    session = ReviewSession(folder / "run", index, tmp_path / "review", length=LENGTH)
    with TestClient(create_review_app(session, TOKEN), base_url="http://localhost") as client:
        answer = client.post(
            "/review/next",
            json={"tab": "a", "order": "uncertain"},
            headers={TOKEN_HEADER: TOKEN},
        )
    question = answer.json()["question"]
    assert (question["picture"], question["sound"]) == (None, None)
    session.close()


def test_halves_of_characters_and_damaged_origins_are_refused(client, session):
    headers = {TOKEN_HEADER: TOKEN}
    half = b'{"tab": "\\ud800", "clip": 0, "answer": "no", "asked": "high"}'
    assert client.post("/review/decide", content=half, headers=headers).status_code == 422
    told = client.post("/review/state", json={}, headers={**headers, "Origin": "http://[evil"})
    assert told.status_code == 403
    assert session.store.history() == []


def test_a_folder_whose_name_is_not_utf_8(reviewed, tmp_path):
    out = tmp_path / os.fsdecode(b"review-\xff")
    try:
        out.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    index = open_index(reviewed[0] / "index")
    session = ReviewSession(reviewed[0] / "run", index, out, length=LENGTH)
    session.store.end_training(session.store.begin_training(12, 12), "done", {"change": {}})
    with TestClient(create_review_app(session, TOKEN), base_url="http://localhost") as client:
        answer = client.post("/review/state", json={}, headers={TOKEN_HEADER: TOKEN})
    assert answer.status_code == 200
    assert "--add-to" in answer.json()["training"]["command"]
    session.close()


def test_on_a_full_disk_all_is_said_and_nothing_is_lost(ask, session):
    ask("decide", clip=0, answer="yes", asked="high")
    with no_large_files(24_000):
        told = ask("decide", 422, clip=1, answer="yes", asked="high")
        assert "Free space on the disk" in told["detail"]
        question = ask("next", order="uncertain")["question"]
        # The page then says that the clip cannot be shown.
        assert (question["picture"], question["sound"]) == (None, None)
    ask("decide", clip=1, answer="yes", asked="high")
    assert [one.answer for one in session.store.decisions()] == ["yes", "yes"]
