"""The command line: `unfreeze COMMAND`. Each command is one thin module.

A command imports Keras only when it runs and needs it, so that `unfreeze --help`
answers at once.
"""

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error of the user is one message and exit code 2."""
    from unfreeze.cli.app import app_for
    from unfreeze.errors import UnfreezeError

    _escape_what_cannot_be_printed()
    try:
        app_for(sys.argv[1:])()
    except UnfreezeError as error:
        _complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        _complain("stopped")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`unfreeze ... | head`), so print no message.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        from unfreeze.cli.terminal import explain

        told = explain(error)
        if told is None:
            raise
        _complain(told)
        sys.exit(2)


def _escape_what_cannot_be_printed() -> None:
    # Names of classes and files may have letters that a console, or a file on Windows that the
    # output goes to, has no code for.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _complain(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from unfreeze.cli.sentences import in_lines

    console, start = Console(stderr=True), "error:"
    told = Text(in_lines(f"{start} {text}", console))
    told.stylize("bold red", 0, len(start))
    console.print(told, soft_wrap=True)
