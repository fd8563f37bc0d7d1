"""The staged engine: any Keras model, any schedule, on any backend.

It needs the libraries Keras and numpy, safetensors for its state on disk and PyYAML
for schedule files, and Matplotlib only to draw a picture. From the package it imports
`errors`, `files` and `backend` only. No module names a backend's own library.
"""
