"""Works for the tests of `unfreeze.audio.cluster`; its workers import them."""

import os
import signal
from pathlib import Path


def local_ray():
    """Ray with two cores on this machine."""
    import ray

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": 40}
    ray.init("local", num_cpus=2, **options)
    return ray


def make_sums(settings):
    """Sums up a unit; some units end their worker, once or always, or are refused."""
    marks = Path(settings["marks"])

    def work(unit):
        if unit == "bad":
            raise ValueError("a bad unit")
        if unit == "fatal" or (unit == "once" and not (marks / "once").exists()):
            (marks / unit).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return settings["plus"], unit

    return work


def make_none(settings):
    """Cannot be made."""
    raise RuntimeError("no such network here")


def make_frames_killed_once(settings):
    """Computes frames, and dies in the first unit."""
    from unfreeze.audio.cluster_features import make_frames

    frames, mark = make_frames(settings["front_end"]), Path(settings["mark"])

    def work(unit):
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return frames(unit)

    return work


def make_slow(settings):
    """Says on which machine it has done a unit, after a while."""
    import time

    import ray

    def work(unit):
        time.sleep(settings["seconds"])
        return unit, ray.get_runtime_context().get_node_id()

    return work
