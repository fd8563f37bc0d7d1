"""Trained classifiers as files for other runtimes; each file is compared with its model."""
