"""Fixtures shared with the other tests of detection."""

from toy_detection import classifier, scene, toy_run  # noqa: F401
