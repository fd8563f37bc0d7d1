"""Small sounds for the toy backbone, and runs that are made up at once."""

from comparing import faked, kept_sounds, sounds  # noqa: F401
