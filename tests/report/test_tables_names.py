from hypothesis import given
from hypothesis import strategies as st

from unfreeze.report.run_plots import _power_of_ten
from unfreeze.report.tables import short, shortest_unique

paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


def test_short_keeps_both_ends():
    assert short("abcdefghij", 10) == "abcdefghij"
    assert short("abcdefghijk", 6) == "abc…jk"


@given(st.text(), st.integers(2, 40))
def test_short_is_never_longer(name, length):
    out = short(name, length)
    assert len(out) == min(len(name), length)
    assert out[0:1] == name[0:1]
    assert length < 3 or out[-1:] == name[-1:]


def test_powers_of_ten_are_plain():
    assert [_power_of_ten(n) for n in (-6, -4, 0, 2, 7)] == ["1e-6", "0.0001", "1", "100", "1e7"]


def test_shortest_unique_drops_what_all_share():
    names = ["base/layer3/conv", "base/layer3/conv/bn", "base/layer4/conv", "head"]
    assert shortest_unique(names) == ["layer3/conv", "bn", "layer4/conv", "head"]


@given(st.lists(paths, unique=True, max_size=12))
def test_shortest_unique_stays_unique(names):
    out = shortest_unique(names)
    assert len(set(out)) == len(names)
    assert all(
        name == end or name.endswith("/" + end) for name, end in zip(names, out, strict=True)
    )
