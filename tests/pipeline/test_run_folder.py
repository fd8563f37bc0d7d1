import csv
import os
from pathlib import Path

import pytest

from unfreeze.errors import RunError
from unfreeze.pipeline import run_folder


def make(folder, finished):
    folder.mkdir()
    run_folder.write_config(folder, {"labels": ["a"]})
    if finished:
        run_folder.write_scores(folder, {"test": None})
    return folder


def test_new_and_empty_folders_may_be_used(tmp_path):
    run_folder.claim(tmp_path / "new", overwrite=False)
    run_folder.claim(tmp_path, overwrite=False)


@pytest.mark.parametrize(("finished", "state"), [(True, "finished"), (False, "an interrupted run")])
def test_a_run_is_replaced_only_when_asked(tmp_path, finished, state):
    folder = make(tmp_path / "run", finished)
    with pytest.raises(RunError, match=state):
        run_folder.claim(folder, overwrite=False)
    run_folder.claim(folder, overwrite=True)
    run_folder.clear(folder)
    assert list(folder.iterdir()) == []


def test_a_run_that_was_half_cleared_by_a_kill_is_not_finished(tmp_path, monkeypatch):
    from unfreeze.core import run_state

    assert run_folder.RECORD == run_state.RUN_FILE
    folder = make(tmp_path / "run", finished=True)
    (folder / run_folder.STAGES).mkdir()
    for name in (run_folder.RECORD, "stage_0.weights.h5"):
        (folder / run_folder.STAGES / name).touch()

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run_folder.clear(folder)
    with pytest.raises(RunError, match="an interrupted run: resume it with --resume"):
        run_folder.claim(folder, overwrite=False)
    assert [p.name for p in (folder / run_folder.STAGES).iterdir()] == ["stage_0.weights.h5"]


def test_what_is_no_run_is_never_removed(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="no unfreeze run"):
        run_folder.claim(tmp_path, overwrite=True)
    run_folder.clear(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"
    with pytest.raises(RunError, match="is a file"):
        run_folder.claim(tmp_path / "letter.txt", overwrite=True)


def test_the_config_comes_back_and_other_formats_are_refused(tmp_path):
    folder = make(tmp_path / "run", finished=False)
    assert run_folder.read_config(folder) == {"unfreeze_run": 1, "labels": ["a"]}
    (folder / "config.yaml").write_text("unfreeze_run: 99\n")
    with pytest.raises(RunError, match="format 99"):
        run_folder.read_config(folder)
    (folder / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(RunError, match="cannot be read"):
        run_folder.read_config(folder)


def test_scores_of_an_unfinished_run_are_an_error(tmp_path):
    with pytest.raises(RunError, match="the run was interrupted"):
        run_folder.read_scores(make(tmp_path / "run", finished=False))


def test_tables_hold_the_columns_of_all_rows(tmp_path):
    run_folder.write_table(tmp_path / "t.csv", [{"a": 1}, {"a": 2, "b": "x,y"}])
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert rows == [{"a": "1", "b": ""}, {"a": "2", "b": "x,y"}]


def describe(run, config, table="path,label,group,split\na/1.wav,a,g,test\n"):
    run.mkdir()
    run_folder.write_config(run, config)
    (run / run_folder.SPLITS).write_text(table)
    return run


def test_recordings_are_found_from_the_root_that_the_run_recorded(tmp_path):
    # With --background the root is a folder above the data.
    run = describe(tmp_path / "r", {"data": {"root": "/sounds"}, "options": {"data": "/sounds/x"}})
    root, rows = run_folder.read_splits(run)
    assert root == Path("/sounds")
    assert rows == [{"path": "a/1.wav", "label": "a", "group": "g", "split": "test"}]
    for number, (given, expected) in enumerate((("/x", "/x"), ("/x/m.CSV", "/x"))):
        old = describe(tmp_path / f"old{number}", {"data": {}, "options": {"data": given}})
        assert run_folder.read_splits(old)[0] == Path(expected)


def test_a_run_that_does_not_tell_is_refused(tmp_path):
    with pytest.raises(RunError, match="does not say where the data are"):
        run_folder.read_splits(describe(tmp_path / "a", {"data": {}}))
    config = {"data": {"root": "/sounds"}}
    with pytest.raises(RunError, match="needs the columns path, label, group, split"):
        run_folder.read_splits(describe(tmp_path / "b", config, "path,label\na/1.wav,a\n"))
    run = describe(tmp_path / "c", config)
    (run / run_folder.SPLITS).unlink()
    with pytest.raises(RunError, match=r"splits\.csv cannot be read"):
        run_folder.read_splits(run)


def test_recordings_whose_names_are_not_utf8_come_back(tmp_path):
    root, name = tmp_path / os.fsdecode(b"sounds-\xff"), os.fsdecode(b"a/caf\xe9\n.wav")
    run_folder.write_config(tmp_path, {"data": {"root": str(root)}})
    row = {"path": name, "label": "a", "group": "g", "split": "train"}
    run_folder.write_table(tmp_path / run_folder.SPLITS, [row])
    assert run_folder.read_splits(tmp_path) == (root, [row])


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_damaged_scores_and_configs_are_named(tmp_path, content):
    (tmp_path / run_folder.METRICS).write_bytes(content)
    with pytest.raises(RunError, match=r"metrics\.json cannot be read \("):
        run_folder.read_scores(tmp_path)
    (tmp_path / run_folder.CONFIG).write_bytes(content)
    with pytest.raises(RunError, match=r"config\.yaml "):
        run_folder.read_config(tmp_path)


def test_the_record_of_stages_is_the_engines():
    from unfreeze.core import run_state

    assert run_folder.RECORD == run_state.RUN_FILE


def test_what_a_run_killed_at_its_very_end_left_is_removed(tmp_path):
    wanted = {"options": {"seed": 3}}
    run_folder.write_config(tmp_path, wanted)
    assert not run_folder.is_finished(tmp_path)
    run_folder.write_scores(tmp_path, {"test": None})
    assert run_folder.is_finished(tmp_path)
    (tmp_path / run_folder.STAGES).mkdir()
    with pytest.raises(RunError, match=r"options\.seed was 3 and is 4"):
        run_folder.scores_of_same(tmp_path, {"options": {"seed": 4}})
    assert run_folder.scores_of_same(tmp_path, wanted) == {"test": None}
    assert not (tmp_path / run_folder.STAGES).exists()


def test_a_path_longer_than_the_system_allows_is_named(tmp_path):
    table = "path,label,group,split\n" + "a/" * 5000 + "b.wav,a,g,test\n"
    run = describe(tmp_path / "run", {"data": {"root": str(tmp_path)}}, table)
    with pytest.raises(RunError, match=r"splits\.csv cannot be read: the path 'a/a/.*too long"):
        run_folder.read_splits(run)
