"""Trained classifiers as files for other runtimes, each compared with its model after writing."""
