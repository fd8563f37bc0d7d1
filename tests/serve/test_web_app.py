import base64
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

import toy
from serving import EVIL

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
httpx = pytest.importorskip("httpx")

import unfreeze  # noqa: E402
from unfreeze.pipeline.thresholds import LEVELS  # noqa: E402
from unfreeze.serve.upload import Limits  # noqa: E402


def send(url, content, name="sound.wav", **query):
    """Send a file as a form; a path, bytes, or an open stream."""
    content = content if isinstance(content, bytes) else content.read_bytes()
    return httpx.post(f"{url}/predict", files={"file": (name, content)}, params=query, timeout=60)


def as_file(samples, rate=toy.RATE, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


class Watched(unfreeze.SoundClassifier):
    """The classifier, with a gate before the network, that counts who is inside."""

    def __init__(self, model):
        super().__init__(model)
        self.gate = threading.Event()
        self.gate.set()
        self.inside = self.most = self.calls = 0

    def scan(self, path, *, hop=None):
        self.inside += 1
        self.calls += 1
        self.most = max(self.most, self.inside)
        assert self.gate.wait(30)
        yield from super().scan(path, hop=hop)
        self.inside -= 1


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_labels_and_limits(url, classifier):
    answer = httpx.get(f"{url}/labels").json()
    assert answer == {
        "labels": list(classifier.labels), "multilabel": False, "background": False,
        "thresholds": dict.fromkeys(classifier.labels, 0.5), "levels": LEVELS.tolist(),
        "costs": None,
        "sample_rate": 16_000, "max_mb": 50.0, "max_seconds": 600.0,
    }  # fmt: skip


def test_a_model_of_several_labels_names_all_that_are_heard(serve, several, two_sounds):
    with serve(several) as url:
        assert httpx.get(f"{url}/labels").json()["multilabel"] is True
        with two_sounds.open("rb") as file:
            answer = httpx.post(f"{url}/predict", files={"file": file}, timeout=60).json()
    chances = several.predict(two_sounds)
    assert answer["heard"] == list(several.heard(chances))
    assert set(answer["heard"]) == {x for x, p in answer["classes"].items() if p >= 0.5}


def test_healthz(url):
    answer = httpx.get(f"{url}/healthz").json()
    assert answer == {
        "status": "ok", "version": unfreeze.__version__, "waiting": 0, "places": 32,
    }  # fmt: skip


@pytest.mark.on_each_backend
def test_a_prediction_is_that_of_the_classifier(url, classifier, two_sounds):
    answer = send(url, two_sounds, "two sounds.wav").json()
    scores = dict(zip(classifier.labels, classifier.predict(two_sounds), strict=True))
    assert set(answer["classes"]) == set(scores)
    for label, score in answer["classes"].items():
        assert score == pytest.approx(float(scores[label]), abs=1e-6)
    values = list(answer["classes"].values())
    assert values == sorted(values, reverse=True)
    assert answer["file"] == "two sounds.wav"
    assert answer["duration"] == 4.0
    assert answer["sample_rate"] == 16_000
    assert answer["spectrogram"] is None

    found = classifier.detect(two_sounds)
    assert [(e["start"], e["end"], e["label"]) for e in answer["events"]] == [
        (e.start, e.end, e.label) for e in found
    ]
    assert [e["score"] for e in answer["events"]] == pytest.approx([e.score for e in found])
    assert {e["label"] for e in answer["events"]} >= {"high", "low"}


def test_other_formats_rates_and_channels(url, classifier, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "stereo.flac"
    path.write_bytes(as_file(0.1 * rng.normal(size=(44_100, 2)), 44_100, "FLAC"))
    answer = send(url, path, "stereo.flac").json()
    expected = dict(zip(classifier.labels, classifier.predict(path).tolist(), strict=True))
    assert answer["classes"] == pytest.approx(expected, abs=1e-6)
    assert answer["sample_rate"] == 44_100
    assert answer["duration"] == pytest.approx(1.0, abs=1e-3)


def test_hop_and_least_score_are_passed_on(url, classifier, two_sounds):
    for query in ({"hop": 0.2}, {"min_score": 0.05}, {"hop": 0.1, "min_score": 0.9}):
        found = classifier.detect(two_sounds, **query)
        events = send(url, two_sounds, **query).json()["events"]
        assert [(e["label"], e["start"]) for e in events] == [(e.label, e.start) for e in found]


def test_scores_by_class(url, classifier, two_sounds):
    query = {"class_score": ["high:0.999999", f"{EVIL}:0.5"], "min_score": 0.05}
    least = {"high": 0.999999, "low": 0.05, EVIL: 0.5}
    found = classifier.detect(two_sounds, min_score=least)
    events = send(url, two_sounds, **query).json()["events"]
    assert [(e["label"], e["start"]) for e in events] == [(e.label, e.start) for e in found]
    assert {e.label for e in found} != {e.label for e in classifier.detect(two_sounds)}


def test_what_thresholds_cost(serve, counted):
    with serve(counted) as url:
        answer = httpx.get(f"{url}/labels").json()
    assert answer["thresholds"] == dict.fromkeys(("high", "low", EVIL), 0.5)
    at = next(n for n, level in enumerate(answer["levels"]) if level >= 0.5)
    known = counted.thresholds_for()
    for label, costs in answer["costs"].items():
        assert len(costs["recall"]) == len(answer["levels"])
        assert costs["recall"][at] == pytest.approx(known[label].recall)
        assert costs["precision"][at] == pytest.approx(known[label].precision)
        assert costs["false_alarms"][at] == pytest.approx(known[label].false_alarms)


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ({"class_score": "dog"}, "class_score: 'dog' is not a class and its score"),
        ({"class_score": "dog:loud"}, "class_score: 'dog:loud' is not"),
        ({"class_score": "lo:0.5"}, "a score is given for 'lo', which the model does not know"),
        ({"class_score": "low:1.5"}, "a minimum score of 1.5 cannot be used"),
        ({"class_score": "low:nan"}, "a minimum score of nan cannot be used"),
        ({"hop": "5"}, "hop: "),
        ({"hop": "fast"}, "hop: "),
        ({"hop": "0.123"}, "multiple of 0.01"),
        ({"min_score": "1.5"}, "min_score: "),
    ],
)
def test_a_bad_parameter_is_refused_by_its_name(url, two_sounds, query, cause):
    answer = send(url, two_sounds, **query)
    assert answer.status_code == 422
    assert cause in answer.json()["cause"]
    assert answer.json()["detail"].startswith(answer.json()["cause"])


def test_the_spectrogram_shows_a_tone_where_it_is(url):
    time = np.arange(3 * toy.RATE) / toy.RATE
    tone = np.where(time < 1.5, np.sin(6.283 * 500 * time), np.sin(6.283 * 4000 * time))
    picture = send(url, as_file(0.5 * tone), spectrogram="true").json()["spectrogram"]
    levels = np.frombuffer(base64.b64decode(picture["levels"]), np.uint8)
    levels = levels.reshape(picture["columns"], picture["bands"])
    assert picture["columns"] == 300
    assert picture["seconds"] == pytest.approx(3.0)
    assert (levels.min(), levels.max()) == (0, 255)

    def hertz(column):
        edges = 1127 * np.log1p(np.array([picture["low_hz"], picture["high_hz"]]) / 700)
        centres = np.linspace(*edges, picture["bands"] + 2)[1:-1]
        return 700 * np.expm1(centres[levels[column].argmax()] / 1127)

    assert hertz(50) == pytest.approx(500, rel=0.06)
    assert hertz(250) == pytest.approx(4000, rel=0.06)


BAD = [
    ("notes.wav", b"no sound at all", "text"),
    ("none.wav", b"", "0 bytes"),
    ("noise.wav", bytes(range(256)) * 8, "not a sound format"),
    ("cut.flac", as_file(np.zeros(9000), kind="FLAC")[:60], "damaged"),
    ("nan.wav", as_file(np.full(16_000, np.nan, np.float32), subtype="FLOAT"), "NaN"),
    ("header.wav", as_file(np.zeros(0)), "no samples"),
    ("talk.m4a", b"\0\0\0\x20ftypM4A " + bytes(range(256)), "AAC or ALAC"),
]


@pytest.mark.parametrize(("name", "content", "cause"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_file_is_named_with_cause_and_cure_and_harms_nobody(
    url, two_sounds, uploads, name, content, cause
):
    answer = send(url, content, name)
    assert answer.status_code == 422
    body = answer.json()
    assert body["file"] == name
    assert cause in body["cause"]
    assert body["cure"]
    assert body["detail"] == f"{name}: {body['cause']}. {body['cure']}"
    assert str(uploads) not in answer.text
    assert send(url, two_sounds).status_code == 200
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/passwd.wav", "passwd.wav"),
        ("C:\\Users\\me\\bark.wav", "bark.wav"),
        ("/etc/cron.d/x", "x"),
        ("größe\u202e.wav", "größe\\u202e.wav"),
        ("x" * 3000 + ".wav", "x" * 200),
        ("...", "..."),
    ],
)
def test_the_name_of_a_file_is_text_and_never_a_path(url, uploads, two_sounds, name, shown):
    answer = send(url, two_sounds, name)
    assert answer.status_code == 200
    assert answer.json()["file"] == shown
    assert list(uploads.iterdir()) == []


@pytest.mark.on_each_backend
def test_twenty_requests_at_once_go_through_the_network_one_by_one(serve, classifier):
    rng = np.random.default_rng(1)
    files = [
        as_file(0.3 * np.sin(6.283 * rng.uniform(200, 4000) * np.arange(20_000) / toy.RATE))
        for _ in range(20)
    ]
    watched = Watched(classifier.model)
    with serve(watched) as url, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda content: send(url, content), files))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert (watched.calls, watched.most) == (20, 1)
    for content, answer in zip(files, answers, strict=True):
        samples = soundfile.read(io.BytesIO(content), dtype="float32")[0]
        expected = dict(zip(classifier.labels, classifier.predict(samples).tolist(), strict=True))
        assert answer.json()["classes"] == pytest.approx(expected, abs=1e-6)


def test_a_full_line_says_when_to_come_again(serve, classifier, two_sounds, uploads):
    watched = Watched(classifier.model)
    watched.gate.clear()
    with serve(watched, Limits(places=2)) as url, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(send, url, two_sounds) for _ in range(2)]
        wait_until(lambda: httpx.get(f"{url}/healthz").json()["waiting"] == 2)
        refused = send(url, two_sounds)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 recordings are waiting" in refused.json()["detail"]
        watched.gate.set()
        assert [one.result().status_code for one in first] == [200, 200]
        assert send(url, two_sounds).status_code == 200
        assert httpx.get(f"{url}/healthz").json()["waiting"] == 0
    assert list(uploads.iterdir()) == []


def test_who_has_gone_is_not_worked_for(serve, classifier, two_sounds):
    watched = Watched(classifier.model)
    watched.gate.clear()
    with serve(watched) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, url, two_sounds)
        wait_until(lambda: watched.inside == 1)
        with pytest.raises(httpx.ReadTimeout):
            impatient = httpx.Timeout(30, read=0.5)
            files = {"file": two_sounds.read_bytes()}
            httpx.post(f"{url}/predict", files=files, timeout=impatient)
        watched.gate.set()
        assert first.result().status_code == 200
        wait_until(lambda: httpx.get(f"{url}/healthz").json()["waiting"] == 0)
    assert watched.calls == 1


def test_a_fault_of_our_own_tells_nothing_and_the_server_goes_on(serve, classifier, two_sounds):
    class Faulty(unfreeze.SoundClassifier):
        broken = True

        def scan(self, path, *, hop=None):
            if self.broken:
                raise ZeroDivisionError("secret detail")
            return super().scan(path, hop=hop)

    faulty = Faulty(classifier.model)
    with serve(faulty) as url:
        answer = send(url, two_sounds)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        faulty.broken = False
        assert send(url, two_sounds).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/page/app.js", "/labels", "/nothing", "/predict"])
def test_every_answer_has_the_security_headers_and_opens_no_other_site(url, path):
    answer = httpx.get(url + path, headers={"Origin": "http://evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_browser_is_not_told_that_other_sites_may_post(url):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{url}/predict", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_openapi_description_covers_the_form_and_all_answers(url):
    api = httpx.get(f"{url}/openapi.json").json()
    post = api["paths"]["/predict"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert {p["name"] for p in post["parameters"]} == {
        *("hop", "min_score", "class_score", "spectrogram")
    }
    assert set(post["responses"]) == {
        *("200", "400", "403", "408", "413", "415", "422", "503", "507")
    }
    body = post["responses"]["422"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Refusal"}
