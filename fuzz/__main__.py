"""Fuzzing with coverage, by atheris (which is not installed with the package).

    python -m fuzz READER [-max_total_time=180] [other options of libFuzzer]

READER is one of `fuzz.readers.READERS`. Whatever comes out of it that is not one of
the package's own errors ends the search and is printed, with the bytes in a file.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Fuzz one reader until something is found or time is up."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (Linux and macOS)")
    from unfreeze.backend import import_keras

    # Before anything is instrumented: a backend does not survive that.
    import_keras()
    with atheris.instrument_imports(include=["unfreeze", "yaml"]):
        from fuzz.readers import READERS
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in READERS:
        sys.exit(f"give one of: {', '.join(READERS)}")
    read, seed = READERS[name]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        Path(corpus, "seed").write_bytes(seed)
        atheris.Setup(
            [sys.argv[0], *sys.argv[2:], corpus], lambda content: read(content, Path(folder))
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
