"""A real server of a classifier on a free port of this machine, for the tests of `serve`."""

import threading
import time
from contextlib import contextmanager

# A class name that would run as a script if a page took it for HTML.
EVIL = "<img src=x onerror=\"window.hacked='label'\"><script>window.hacked=1</script>"


@contextmanager
def running(classifier, limits=None, local_only=True):
    """Serve a classifier as the command does; yields the address."""
    from unfreeze.serve import server
    from unfreeze.serve.app import create_app

    with server.bind("127.0.0.1", 0) as bound:
        http = server.make_server(create_app(classifier, limits, local_only=local_only))
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
