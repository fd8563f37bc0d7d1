"""Measurements, run by hand: `python -m benchmarks.NAME`. Never part of the tests."""
