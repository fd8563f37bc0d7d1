import os
import subprocess
import sys

import pytest

from unfreeze import backend
from unfreeze.errors import UnfreezeError


def run(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    assert backend.choose_backend() == "numpy"


def test_without_a_choice_an_installed_backend_is_taken(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    absent = ("tensorflow", "torch")
    monkeypatch.setattr(backend, "has_module", lambda name: name not in absent)
    assert backend.choose_backend() == "jax"
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_a_missing_backend_is_named_with_its_cure(monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "has_module", lambda name: False)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UnfreezeError, match=r"pip install 'unfreeze\[torch\]'"):
        backend.choose_backend()
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UnfreezeError, match=r"pip install 'unfreeze\[tensorflow\]'"):
        backend.choose_backend()


@pytest.mark.on_each_backend
def test_importing_keras_says_nothing():
    done = run("from unfreeze.backend import import_keras; import_keras(); print('there')")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "there", "")


def test_a_failed_import_shows_what_was_said(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('a broken Keras')\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "from unfreeze.backend import import_keras\n"
        "import_keras()"
    )
    done = run(code)
    assert done.returncode == 1
    assert "ImportError: a broken Keras" in done.stderr


def test_what_is_missing_beside_a_backend_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(backend, "has_module", lambda name: name not in ("sklearn", "h5py"))
    with pytest.raises(
        UnfreezeError, match=r"torch this needs h5py and sklearn: not installed.*unfreeze\[torch\]"
    ):
        backend.choose_backend()


def test_import_unfreeze_does_not_import_keras():
    code = "import unfreeze, unfreeze.cli.app, sys; print('keras' in sys.modules)"
    assert run(code).stdout.strip() == "False"
