"""Fixtures of the tests of reports."""

from browsing import browser, launch  # noqa: F401
from reporting import made, own  # noqa: F401
