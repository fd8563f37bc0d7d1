"""A classifier that trains in seconds, and real servers on a free port."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import soundfile

import toy

# A class name that would run as a script if a page took it for HTML.
EVIL = "<img src=x onerror=\"window.hacked='label'\"><script>window.hacked=1</script>"


def make_classifier(folder, labels=("high", "low", EVIL), activation="softmax"):
    """A real classifier of toy sounds; its backbone is the mean of each band over time."""
    import keras

    from unfreeze import SoundClassifier
    from unfreeze.audio.clip_model import clip_model, patch_model
    from unfreeze.audio.logmel import log_mel_frames
    from unfreeze.backbones.frontend import FrontEnd

    patches = keras.Input((96, 64), name="patches")
    bands = keras.layers.GlobalAveragePooling1D(name="embedding")(patches)
    model = patch_model(keras.Model(patches, bands), len(labels), seed=0, activation=activation)
    files = sorted(toy.write_sounds(folder, clips=12).rglob("*.wav"))
    frames = [log_mel_frames(soundfile.read(f, dtype="float32")[0], FrontEnd()) for f in files]
    classes = np.array([("high", "low", "noise").index(f.parent.name) for f in files])
    several = activation == "sigmoid"
    model.compile(
        keras.optimizers.Adam(0.01), f"{'binary' if several else 'categorical'}_crossentropy"
    )
    truth = np.eye(3)[classes]
    model.fit(np.stack([f[:96] for f in frames]), truth, epochs=40, batch_size=12, verbose=0)
    return SoundClassifier(clip_model(model, FrontEnd(), labels))


@contextmanager
def running(classifier, limits=None, local_only=True):
    """Serve a classifier as the command does; yields the address."""
    from unfreeze.serve.web_app import create_app

    with served(create_app(classifier, limits, local_only=local_only)) as url:
        yield url


@contextmanager
def served(app):
    """Serve a web application on a free port; yields the address."""
    from unfreeze.serve import server

    with server.bind("127.0.0.1", 0) as bound:
        http = server.make_server(app)
        thread = threading.Thread(target=http.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not http.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert http.started
        try:
            yield server.url_of(bound)
        finally:
            http.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
