"""Settings of augmentation, by name and by file."""

import pytest

from unfreeze.audio.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    plain_augmentation,
    read_augmentation,
)
from unfreeze.errors import ScheduleError


def test_settings_with_a_name():
    assert read_augmentation("none") is None
    assert read_augmentation("strong") is AUGMENTATIONS["strong"]
    assert plain_augmentation("light") == "light"


def test_a_file_sets_what_it_names_and_leaves_out_the_rest(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("# small rooms\nshift: 12\nlevel: 0.5\nmix: 1\n")
    assert read_augmentation(str(file)) == Augmentation(shift=12, level=0.5, mix=1)
    plain = plain_augmentation(str(file))
    assert plain["shift"] == 12
    assert plain["warp"] == 0
    assert Augmentation(**plain) == read_augmentation(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shift: 1.5\n", "mine.yaml:1: shift must be a whole number, not the number 1.5"),
        ("level: 0.1\nshift: 97\n", "mine.yaml:2: shift 97 must be from 0 to 96"),
        ("mix: -0.1\n", "mine.yaml:1: mix -0.1 must be from 0 to 1"),
        ("mixup: 11\n", "mine.yaml:1: mixup 11 must be from 0 to 10"),
        ("levle: 0.5\n", r"mine.yaml:1: augmentation: unknown key 'levle'. Did you mean 'level'"),
        ("- shift: 1\n", "mine.yaml:1: augmentation must be `key: value` lines, not a list"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_line(text, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ScheduleError, match=message):
        read_augmentation(str(file))
