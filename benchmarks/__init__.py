"""Measurements: `python -m benchmarks` runs them all. Never part of the tests."""
