"""Fuzzing of what reads files that people and other programs write."""
