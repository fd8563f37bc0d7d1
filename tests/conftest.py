"""Fixtures that every room of the tests shares."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real recordings for trials; not part of the project."""
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("UNFREEZE_TEST_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test recordings at {folder} (set UNFREEZE_TEST_DATA)")
    return folder
