"""A trained classifier as a web service with a page of its own (`unfreeze serve`).

Needs the extra `serve`. Nothing here is imported by the rest of the package.
"""
