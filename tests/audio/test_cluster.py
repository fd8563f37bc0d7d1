"""Units on a Ray cluster of two workers on this machine: results, deaths, refusals."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster_works import local_ray
from unfreeze.audio import cluster as module
from unfreeze.audio.cluster import Cluster, Lost, chosen_cluster, run_units
from unfreeze.audio.feature_store import build_store
from unfreeze.audio.manifest import read_manifest
from unfreeze.backbones.frontend import FrontEnd
from unfreeze.errors import DataError, RunError, UnfreezeError


@pytest.fixture(scope="module")
def ray():
    """Ray with two cores on this machine; its workers find the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        yield local_ray()
        sys.modules["ray"].shutdown()


@pytest.fixture
def data(tmp_path: Path, write_sound) -> Path:
    """Clips of many rates and two formats."""
    for number in range(12):
        suffix = ("wav", "flac", "wav")[number % 3]
        rate = (16_000, 22_050, 8_000, 44_100)[number % 4]
        name = f"data/{'ab'[number % 2]}/{number:02}.{suffix}"
        write_sound(name, seconds=0.3 + number / 3, rate=rate)
    return tmp_path / "data"


def test_the_options_are_checked_before_ray_is_imported(monkeypatch) -> None:
    assert chosen_cluster("local", None) is None
    assert chosen_cluster("ray", "auto") == Cluster("auto")
    with pytest.raises(UnfreezeError, match="no engine 'rai': give one of local, ray"):
        chosen_cluster("rai", None)
    with pytest.raises(UnfreezeError, match="--address is of a Ray cluster: add --engine ray"):
        chosen_cluster("local", "auto")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnfreezeError, match=r"not installed.*pip install 'unfreeze\[ray\]'"):
        chosen_cluster("ray", None)


def test_ray_is_not_imported_unless_asked_for() -> None:
    code = (
        "import sys, unfreeze.cli.app, unfreeze.audio.cluster_features; print('ray' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_units_survive_the_death_of_their_worker_and_the_bad_ones_are_reported(
    ray, tmp_path: Path
) -> None:
    units = [*range(6), "once", "bad", "fatal", *range(6, 9)]
    settings = {"marks": str(tmp_path), "plus": np.arange(3)}
    found = dict(run_units(Cluster(), "cluster_works:make_sums", settings, units))
    assert sorted(found) == list(range(12))
    assert found[7] == Lost("ValueError: a bad unit")
    assert isinstance(found[8], Lost)
    assert found[8].cause.startswith("3 workers died over it")
    for number in {*range(12)} - {7, 8}:
        plus, unit = found[number]
        assert (plus.tolist(), unit) == ([0, 1, 2], units[number])
    assert (tmp_path / "once").exists()
    assert list(run_units(Cluster(), "cluster_works:make_sums", settings, [])) == []


@pytest.mark.slow
def test_a_cluster_that_cannot_do_the_work_is_refused(ray, monkeypatch) -> None:
    with pytest.raises(RunError, match="cannot do the work: RuntimeError: no such network here"):
        list(run_units(Cluster(), "cluster_works:make_none", {}, [1]))
    monkeypatch.setattr(module, "__version__", "9.9")
    with pytest.raises(RunError, match=r"has unfreeze .*, this one 9\.9: install the same version"):
        list(run_units(Cluster(), "cluster_works:make_sums", {"marks": "."}, [1]))


def test_features_and_checks_are_those_of_this_machine_to_the_bit(
    ray, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("unfreeze.audio.frame_processes.UNIT", 1 << 15)
    monkeypatch.setattr("unfreeze.audio.cluster_features._FILES", 3)
    (data / "a" / "none.wav").write_text("no sound")
    seen: list[tuple[int, int]] = []
    here = read_manifest(data)
    there = read_manifest(data, cluster=Cluster(), progress=lambda *at: seen.append(at))
    assert there == here
    assert [problem.path.name for problem in there.problems if problem.fatal] == ["none.wav"]
    assert seen[-1] == (13, 13)
    own = build_store(here, FrontEnd(), tmp_path / "own", workers=1)
    theirs = build_store(here, FrontEnd(), tmp_path / "theirs", cluster=Cluster())
    assert theirs.fingerprint == own.fingerprint
    whole = (tmp_path / "own/frames.f32").read_bytes()
    assert (tmp_path / "theirs/frames.f32").read_bytes() == whole
    clip = here.clips[3]
    moved = replace(here, clips=(*here.clips[:3], replace(clip, content="0" * 64), *here.clips[4:]))
    with pytest.raises(DataError, match=f"{clip.path.name} changed while it was being read"):
        build_store(moved, FrontEnd(), tmp_path / "moved", cluster=Cluster())
    assert not (tmp_path / "moved/meta.json").exists()


def test_a_build_that_was_interrupted_on_a_cluster_goes_on_here(
    ray, data: Path, tmp_path: Path, monkeypatch
) -> None:
    def stop(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr("unfreeze.audio.frame_processes.UNIT", 1 << 15)
    manifest, seen = read_manifest(data), list[tuple[int, int]]()
    with pytest.raises(KeyboardInterrupt):
        build_store(manifest, FrontEnd(), tmp_path / "s", cluster=Cluster(), progress=stop)
    build_store(
        manifest, FrontEnd(), tmp_path / "s", workers=1, progress=lambda *at: seen.append(at)
    )
    assert 0 < seen[0][0] < seen[-1][0]
    build_store(manifest, FrontEnd(), tmp_path / "own", workers=1)
    whole = (tmp_path / "own/frames.f32").read_bytes()
    assert (tmp_path / "s/frames.f32").read_bytes() == whole


# Of units alone it is shown above.
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_unit(ray, data: Path, tmp_path: Path, monkeypatch):
    def killed_once(cluster, make, settings, units):
        works = {"front_end": settings, "mark": str(tmp_path / "mark")}
        return run_units(cluster, "cluster_works:make_frames_killed_once", works, units)

    monkeypatch.setattr("unfreeze.audio.frame_processes.UNIT", 1 << 15)
    monkeypatch.setattr("unfreeze.audio.cluster_features.run_units", killed_once)
    manifest = read_manifest(data)
    build_store(manifest, FrontEnd(), tmp_path / "own", workers=1)
    build_store(manifest, FrontEnd(), tmp_path / "theirs", cluster=Cluster())
    assert (tmp_path / "mark").exists()
    whole = (tmp_path / "own/frames.f32").read_bytes()
    assert (tmp_path / "theirs/frames.f32").read_bytes() == whole


NODES = """
import sys, threading, time
from ray.cluster_utils import Cluster as Machines
machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1})
other = machines.add_node(num_cpus=1)
machines.wait_for_nodes()
from unfreeze.audio.cluster import Cluster, run_units
threading.Timer(8, machines.remove_node, (other, False)).start()
units = range(80)
found = run_units(Cluster(machines.address), "cluster_works:make_slow", {"seconds": 0.2}, units)
found = list(found)
same = sorted(unit for _, (unit, _) in found) == list(units)
print("found", same, len({node for _, (_, node) in found}), len(machines.list_all_nodes()))
import ray
ray.shutdown()
machines.shutdown()
"""


@pytest.mark.slow
def test_a_machine_that_is_killed_costs_the_units_it_was_doing() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", NODES], capture_output=True, text=True, env=environment, timeout=300
    )
    assert "found True 2 1" in found.stdout.splitlines(), found.stderr
