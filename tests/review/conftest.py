"""A run and recordings to review with it, made once for all tests of reviews."""

import pytest

import reviewing


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory):
    """A folder with `run`, `field` and `index`, and the truth of the field."""
    folder = tmp_path_factory.mktemp("reviewed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield folder, reviewing.make_home(folder, monkeypatch)
