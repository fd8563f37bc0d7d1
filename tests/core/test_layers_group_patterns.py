"""Groups by pattern: single ones, and the top."""

import pytest

from graphs import three_blocks
from unfreeze.core.graph import flatten
from unfreeze.core.layers import check, find_groups, group_layers, is_group_pattern
from unfreeze.core.presets import preset
from unfreeze.errors import ScheduleError

GROUPS = find_groups(flatten(three_blocks()))


def names(pattern):
    return [layer.name for layer in group_layers(GROUPS, pattern, "s")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("group:1", ["block1_conv", "block1_bn"]),
        ("group:3", ["block3_conv", "block3_bn"]),
        ("group:-1", ["block3_conv", "block3_bn"]),
        ("group:-3", ["block1_conv", "block1_bn"]),
        ("head", ["transfer_dense", "transfer_out"]),
        ("top:1", ["block3_conv", "block3_bn", "transfer_dense", "transfer_out"]),
    ],
)
def test_layers_of_a_pattern(pattern, expected):
    assert is_group_pattern(pattern)
    assert names(pattern) == expected


@pytest.mark.parametrize("pattern", ["group:0", "group:x", "group:", "group:1.5", "group:01"])
def test_malformed_group(pattern):
    with pytest.raises(ScheduleError, match="should look like 'group:1'"):
        names(pattern)


@pytest.mark.parametrize("pattern", ["group:4", "group:-4"])
def test_more_groups_than_there_are(pattern):
    with pytest.raises(ScheduleError, match="has 3 groups below its head"):
        names(pattern)


@pytest.mark.parametrize(
    ("name", "block"), [("surgical:first", 1), ("surgical:last", 3), ("surgical:group:2", 2)]
)
def test_surgical_trains_one_block_and_the_head(name, block):
    head, surgical = check(flatten(three_blocks()), preset(name))
    trained = {v.path.split("/")[0] for v in surgical.trained}
    assert trained == {f"block{block}_conv", "transfer_dense", "transfer_out"}
    assert {v.path.split("/")[0] for v in head.trained} == {"transfer_dense", "transfer_out"}
