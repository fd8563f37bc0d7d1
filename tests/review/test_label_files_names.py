"""Names of classes that people type."""

import re

import pytest

from unfreeze.errors import UnfreezeError
from unfreeze.review.label_files import named_class

KNOWN = ("background", "high", "Dog", "-odd")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "is empty"),
        (" \n", "is empty"),
        ("High", "in capitals alone"),
        ("dog", "in capitals alone"),
        ("-dog", "cannot begin with -"),
        ("owl?", "end with ?"),
        ("a;b", "several classes"),
        ("x" * 101, "too long for a folder"),
        ("\u65e5" * 67, "too long for a folder"),
        ("/" * 67, "too long for a folder"),
        ("\ud800", "cannot be printed"),
    ],
)
def test_what_could_not_be_trained_on_or_written_is_refused(label, message):
    with pytest.raises(UnfreezeError, match=re.escape(message)):
        named_class(label, KNOWN)


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("high", "high"),
        # A class of the run is taken as it is.
        ("-odd", "-odd"),
        (" great  tit ", "great tit"),
        ("Background noise", "background"),
        ("no call", "background"),
        ("noise", "noise"),
        ("\u65e5" * 66, "\u65e5" * 66),
    ],
)
def test_what_is_meant_is_found(label, named):
    assert named_class(label, KNOWN) == named
