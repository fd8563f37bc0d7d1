"""Events in samples that come as from a microphone."""

import threading
import time
import tracemalloc

import numpy as np
import pytest

import toy
from toy_detection import scene_samples
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.detection import live as live_module
from unfreeze.detection.detector import make_detector
from unfreeze.detection.events import DetectOptions, Event, EventStart
from unfreeze.detection.live import LIMIT, LiveDetector, listen
from unfreeze.detection.live_sources import Inbox
from unfreeze.detection.scan import PatchBlock

SCENE = scene_samples().astype(np.float32)


def tones(events):
    return [
        (round(e.start, 6), round(e.end, 6), e.label)
        for e in events
        if isinstance(e, Event) and e.label != "noise"
    ]


def test_live_events_are_the_same_however_the_sound_comes(classifier, scene):
    def heard(step, **times):
        live = classifier.live(**times)
        found = [e for at in range(0, len(SCENE), step) for e in live.push(SCENE[at : at + step])]
        return [*found, *live.finish()]

    times = {"min_duration": 0.5, "max_gap": 1.0}
    for options in ({}, times):
        # Starts and events, in the same order.
        assert heard(801, **options) == heard(160_000, **options)
        recorded = tones(classifier.detect(scene, hop=0.12, **options))
        assert [label for *_, label in recorded] == ["high", "low"]
        # The recording's own 16-bit samples move a score, and times by little.
        for live, whole in zip(tones(heard(5_000, **options)), recorded, strict=True):
            assert live[:2] == pytest.approx(whole[:2], abs=0.002)


def test_a_steady_sound_is_announced_when_it_begins(classifier):
    """A tone of a minute: its start is given within a second, its end when it is over."""
    rate, live = toy.RATE, classifier.live()
    tone = SCENE[round(5.5 * rate) : round(6.5 * rate)]
    sound = np.concatenate([SCENE[: 5 * rate], np.tile(tone, 60), SCENE[8 * rate : 12 * rate]])
    given = []
    for at in range(0, len(sound), 160):
        given += [(round((at + 160) / rate, 2), e) for e in live.push(sound[at : at + 160])]
    high = [(clock, e) for clock, e in given if e.label == "high"]
    (begun, start), (over, event) = high
    assert isinstance(start, EventStart)
    assert isinstance(event, Event)
    assert event.start == start.start
    assert event.start == pytest.approx(5.0, abs=0.3)
    assert event.end == pytest.approx(65.0, abs=0.3)
    assert begun < 6.0
    assert 65.0 < over < 66.6


class Scripted:
    """A network whose scores are the first band of each patch's first frame, and its rest."""

    def __call__(self, patches, training=False):
        first = np.asarray(patches)[:, 0, 0]
        return np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize("times", [{}, {"min_duration": 0.3}, {"max_gap": 0.4}])
def test_one_event_of_a_class_is_open_at_a_time(times, monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.choice([0.05, 0.3, 0.9], size=400, p=[0.4, 0.3, 0.3]).astype(np.float32)
    front_end = FrontEnd()
    options = DetectOptions(hop=0.12, **times)
    detector = make_detector(front_end, ["cat", "background"], np.array([0.5, 0.5]), options)
    monkeypatch.setattr(live_module, "patch_scores", lambda model, patches: model(patches))
    live = LiveDetector(Scripted(), front_end, detector)
    patches = np.tile(scores[:, None, None], (1, 96, 64))
    starts = np.arange(400) * 0.12
    block = PatchBlock(patches, starts, starts + 0.96)
    given = [*live._score(block), *live._shifted(live._events.finish())]
    kinds = [type(event) for event in given]
    assert kinds == [EventStart, Event] * (len(given) // 2)
    assert [a.start for a in given[::2]] == [b.start for b in given[1::2]]
    assert len(given) > 20


def test_memory_does_not_grow_with_the_sound(classifier):
    def peak(seconds):
        live = classifier.live()
        live.push(SCENE)  # compiled, and all work space is there
        tracemalloc.start()
        for _ in range(seconds * toy.RATE // len(SCENE)):
            live.push(SCENE)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    short, long = peak(30), peak(300)
    assert long < 1.1 * short


def test_a_start_is_given_at_once_and_an_end_when_nothing_can_be_added(classifier):
    live = classifier.live()
    late = {}
    for at in range(0, len(SCENE), 160):
        for event in live.push(SCENE[at : at + 160]):
            time = event.end if isinstance(event, Event) else event.start
            late[event.label, type(event)] = (at + 160) / toy.RATE - time
    for label in ("high", "low"):
        assert late[label, EventStart] < 0.96
        # A window after the last one in which it is heard, a hop, and our steps.
        assert 0.9 < late[label, Event] < 1.5


def test_dropped_samples_end_an_event_and_move_the_clock(classifier):
    live = classifier.live()
    found = live.push(SCENE[: 7 * toy.RATE])
    found += live.skip(4 * toy.RATE)
    assert tones(found)[-1][1:] == (7.0, "high")
    assert live.seconds == 11.0
    found = live.push(SCENE[11 * toy.RATE :])
    start, end, label = tones([*found, *live.finish()])[0]
    assert label == "low"
    assert (abs(start - 12), abs(end - 14.5)) < (0.5, 0.5)


def run(detector, inbox, events, lags):
    return listen(detector, inbox, toy.RATE, events.append, lambda *lag: lags.append(lag))


def test_a_network_that_is_too_slow_is_told_of_and_catches_up(classifier):
    """A stall of two seconds in the network, while sound comes as it plays."""
    live, stalled = classifier.live(), []
    live.warm_up()
    push = live.push

    def stall(samples):
        if live.seconds > 0.5 and not stalled:
            stalled.append(True)
            time.sleep(2.0)
        return push(samples)

    live.push = stall
    inbox, events, lags = Inbox(int(LIMIT * toy.RATE), waits=False), [], []

    def play():
        for at in range(0, 7 * toy.RATE // 2, 800):
            inbox.put(SCENE[at : at + 800])
            time.sleep(0.05)
        inbox.close()

    thread = threading.Thread(target=play)
    thread.start()
    total = run(live, inbox, events, lags)
    thread.join()
    assert total.seconds == 3.5
    assert total.dropped == 0
    assert 1.0 < total.worst < 4.0
    assert lags[0][0] > 1.0
    assert lags[-1] == (0.0, 0.0)


def test_a_pipe_faster_than_the_clock_is_not_late(classifier):
    live, lags = classifier.live(), []
    live.warm_up()
    inbox = Inbox(int(LIMIT * toy.RATE), waits=True)

    def play():
        for at in range(0, len(SCENE), 8000):
            inbox.put(SCENE[at : at + 8000])
        inbox.close()

    thread = threading.Thread(target=play)
    thread.start()
    total = run(live, inbox, [], lags)
    thread.join()
    assert (total.seconds, total.dropped, lags) == (20.0, 0.0, [])


def test_what_was_dropped_is_told_of(classifier):
    inbox, lags = Inbox(2 * toy.RATE, waits=False), []
    for at in range(0, 5 * toy.RATE, toy.RATE):
        inbox.put(SCENE[at : at + toy.RATE])
    inbox.close()
    total = run(classifier.live(), inbox, [], lags)
    assert total.dropped == pytest.approx(3.0)
    assert lags[0][1] == pytest.approx(3.0)
    assert total.seconds == pytest.approx(5.0)


def test_the_hop_is_an_eighth_of_a_patch(classifier):
    assert classifier.live()._detector.hop == 12
    assert classifier.detector(DetectOptions(hop=0.12)).hop == 12
