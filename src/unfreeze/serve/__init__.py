"""A trained classifier as a web service with its own page (`unfreeze serve`).

Needs the extra `serve`. The rest of the package imports nothing from here.
"""
