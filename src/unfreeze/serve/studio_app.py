"""The web application of the studio: choose data, look at them, train, and use what comes of it.

Each thing that the page does is a command (`unfreeze.serve.studio_commands`), which it shows.
What reads or changes anything needs a token (`unfreeze.serve.json_requests`), and names places
below the studio's folder only (`unfreeze.serve.studio_folder`). Reports are pages of their own:
their scripts run without the rights of this site, and their address has a key that is good for
that report alone. All else is as in `unfreeze.serve.web_app`.
"""

import asyncio
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from unfreeze.audio.decode_processes import Decoders
from unfreeze.audio.table_file import TABLES
from unfreeze.errors import DataError, RunError, UnfreezeError, show
from unfreeze.pipeline import run_folder
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.review.retraining import PROGRAM
from unfreeze.serve import studio_commands as commands
from unfreeze.serve.answers import Refused
from unfreeze.serve.json_requests import RELOAD, Work, admit, json_route, text_in
from unfreeze.serve.studio_folder import (
    RunList,
    StudioFolder,
    class_folder,
    data_folder,
    has_sound_suffix,
    is_table_name,
    keep_recording,
    keep_table,
    list_folder,
)
from unfreeze.serve.studio_jobs import TIED_PROGRAM, Errands, Training
from unfreeze.serve.upload import Limits, Line, received
from unfreeze.serve.web_app import (
    HTML,
    ICON,
    SCRIPT,
    STYLE,
    UPLOADS_POLICY,
    add_refusals,
    as_route,
    guarded,
    read_pages,
)
from unfreeze.version import __version__

COMMAND = "unfreeze studio"
#: The folder, beside the runs, for what is known of trainings.
HOME = ".studio"
_PAGES = {
    "/": ("studio.html", HTML),
    "/page/style.css": ("style.css", STYLE),
    "/page/studio.css": ("studio.css", STYLE),
    "/page/icon.svg": ("icon.svg", ICON),
    "/page/studio.js": ("studio.js", SCRIPT),
    "/page/studio_ask.js": ("studio_ask.js", SCRIPT),
    "/page/studio_run.js": ("studio_run.js", SCRIPT),
    "/page/text.js": ("text.js", SCRIPT),
}
# Without the rights of this site: a report is a file, which another could have made.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; media-src data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_LARGEST_REPORT = 64_000_000
# Looks at data at once, and problems of data that are sent.
_LOOKS, _PROBLEMS = 2, 200


class Studio:
    """What a page may ask for; threads share it.

    Args:
        folder: the folder, and that of its runs.
        max_mb: of a file that is dropped, in megabytes.
        program: starts `unfreeze` for a training.
        tied: starts it for all else.
    """

    def __init__(
        self,
        folder: StudioFolder,
        max_mb: float = 200.0,
        program: Sequence[str] = PROGRAM,
        tied: Sequence[str] = TIED_PROGRAM,
    ) -> None:
        self.folder = folder
        self.limits = Limits(max_mb=max_mb)
        self.training = Training(folder.runs / HOME, program)
        self.errands = Errands(tied)
        self.runs = RunList(folder)
        self.decoders = Decoders()
        self._looks = threading.Semaphore(_LOOKS)
        self._placing = threading.Lock()
        self._formats: list[dict[str, Any]] | None = None

    def about(self) -> dict[str, Any]:
        """What does not change: the folder, the form, the formats and endings, the limits."""
        if self._formats is None:
            self._formats = commands.formats()
        return {
            "folder": show(self.folder.root),
            "runs": show(self.folder.runs),
            "fields": commands.fields(),
            "formats": self._formats,
            "tables": list(TABLES),
            "max_mb": self.limits.max_mb,
            "command": commands.as_line(["studio", str(self.folder.root)]),
        }

    def state(self) -> dict[str, Any]:
        """What changes: the training, the runs, the export, the page to listen on."""
        return {
            "training": self.training.state(),
            "runs": self.runs.rows(),
            "export": self.errands.exported(),
            "listening": self.errands.listening(),
        }

    def chosen(self, asked: dict[str, Any]) -> TrainOptions:
        """The settings of a training that was chosen.

        Raises:
            UnfreezeError: it cannot be started so.
        """
        data = self.folder.place(text_in(asked, "data"))
        run = self.folder.new_run(text_in(asked, "name"))
        given = asked.get("options", {})
        if not isinstance(given, dict):
            raise Refused(422, "options must be an object", RELOAD)
        return commands.options_of(data, run, given)

    def plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The commands of what is chosen, and why a training cannot begin so, or None."""
        options = self.chosen(asked)
        problem = None
        assert options.out is not None
        if options.out.exists() or options.out.name == self.training.name():
            problem = f"There is a run {options.out.name} already: give another name."
        return {
            "train": commands.as_line(commands.train_words(options)),
            "inspect": commands.as_line(commands.inspect_words(options)),
            "problem": problem,
        }

    def inspect(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What `unfreeze inspect` sees in the data."""
        options = self.chosen({"name": "run", **asked})
        self.folder.data(text_in(asked, "data"))
        if not self._looks.acquire(blocking=False):
            raise Refused(503, "others look at data now", "Try again in a moment.")
        try:
            words = commands.inspect_words(options)
            ended = self.errands.call([*words, "--json"])
        finally:
            self._looks.release()
        try:
            seen = json.loads(ended.out)
        except ValueError:
            raise DataError(ended.cause or "unfreeze inspect printed nothing") from None
        for part in seen["split"].values():
            del part["files"]
        seen["more_problems"] = max(len(seen["problems"]) - _PROBLEMS, 0)
        # What is left out comes first.
        seen["problems"] = sorted(seen["problems"], key=lambda one: not one["fatal"])[:_PROBLEMS]
        return {"seen": seen, "cause": ended.cause, "command": commands.as_line(words)}

    def train(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Start a training."""
        options = self.chosen(asked)
        self.folder.data(text_in(asked, "data"))
        assert options.out is not None
        if options.out.exists():
            raise RunError(f"There is a run {options.out.name} already: give another name")
        self.training.start(options.out, commands.train_words(options), resumes=False)
        return {"name": options.out.name}

    def resume(self, name: str) -> dict[str, Any]:
        """Resume an interrupted one."""
        run = self.folder.run(name)
        options = commands.options_to_resume(run, self.folder.root)
        self.folder.data(options.data.resolve().relative_to(self.folder.root).as_posix())
        self.training.start(run, commands.train_words(options), resumes=True)
        return {"name": name}

    def export(self, name: str, format: str) -> dict[str, Any]:
        """Begin an export."""
        words = commands.export_words(self._finished(name), format)
        if format not in [form["name"] for form in commands.formats()]:
            raise UnfreezeError(f"{show(format)} is no format of an export")
        self.errands.export(name, format, words, commands.as_line(words))
        return {}

    def listen(self, name: str) -> dict[str, Any]:
        """Serve a run as a page."""
        words = commands.serve_words(self._finished(name))
        self.errands.listen(name, words, commands.as_line(words))
        return {}

    def run_commands(self, name: str) -> dict[str, Any]:
        """The commands behind the buttons of a run."""
        run = self.folder.run(name)
        if run_folder.is_finished(run):
            return {
                "listen": commands.as_line(commands.serve_words(run)),
                "export": commands.as_line(commands.export_words(run, "FORMAT")),
                "report": commands.as_line(["report", str(run)]),
            }
        options = commands.options_to_resume(run, self.folder.root)
        return {"resume": commands.as_line(commands.train_words(options))}

    def report(self, name: str) -> bytes:
        """The report of a run.

        Raises:
            RunError: there is none, or it cannot be shown.
        """
        run = self._finished(name)
        run_folder.refuse_links(run)
        file = run / run_folder.REPORT
        try:
            if file.stat().st_size > _LARGEST_REPORT:
                raise RunError(f"{show(file)} is too large to be shown here: open it as a file")
            return file.read_bytes()
        except OSError:
            cure = commands.as_line(["report", str(run)])
            raise RunError(f"{show(run)} has no report yet. To write it: {cure}") from None

    def keep(self, file: Path, name: str, place: Path) -> dict[str, Any]:
        """Keep a file that was dropped, if it is sound, or a table of labels that can be used.

        Raises:
            Refused: it is none.
            DataError: it is a table that training could not read.
        """
        if is_table_name(name):
            with self._placing:
                final, is_new, labels = keep_table(self.folder, file, name, place)
            kept = show(final.relative_to(self.folder.root))
            return {"kept": kept, "new": is_new, "labels": labels}
        cause = "its name is not that of a sound file or a table"
        if has_sound_suffix(name):
            # Read to its end, in a process of its own: a damaged file may crash its reader.
            ((facts, problems),) = self.decoders.examine([(file, Path(name))])
            cause = next((one.cause for one in problems if one.fatal), "it cannot be read")
            if facts is not None:
                with self._placing:
                    final, is_new = keep_recording(file, name, place)
                kept = show(final.relative_to(self.folder.root))
                return {"kept": kept, "new": is_new, "seconds": facts.seconds}
        cure = "Only sound files and tables of labels are kept."
        raise Refused(422, cause, cure, file=name)

    def close(self) -> str | None:
        """End everything; return the name of a run whose training was stopped."""
        self.errands.close()
        self.decoders.close()
        return self.training.close()

    def _finished(self, name: str) -> Path:
        run = self.folder.run(name)
        if not run_folder.is_finished(run):
            raise RunError(f"{show(name)} is not finished yet")
        return run


def create_studio_app(studio: Studio, token: str, *, local_only: bool = True) -> Any:
    """Make the web application of a studio.

    Args:
        studio: threads share it.
        token: that requests must bring.
        local_only: refuse requests for any host name but this machine's own; for a server
            that listens on a loopback address.

    Returns:
        An ASGI application.
    """
    app = FastAPI(title=COMMAND, version=__version__, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    for url, (content, kind) in read_pages(_PAGES).items():
        app.add_api_route(
            url, as_route(content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )

    def name_in(asked: dict[str, Any]) -> str:
        return text_in(asked, "name")

    def stop(asked: dict[str, Any]) -> dict[str, Any]:
        studio.training.stop(name_in(asked))
        return {}

    def state(asked: dict[str, Any]) -> dict[str, Any]:
        told = studio.state()
        told["runs"] = [
            {**run, "report": f"report/{quote(run['name'])}?key={_key(token, run['name'])}"}
            if run.get("report")
            else run
            for run in told["runs"]
        ]
        return told

    answers: dict[str, Work] = {
        "about": lambda asked: studio.about(),
        "state": state,
        "browse": lambda asked: list_folder(studio.folder, text_in(asked, "path", "")),
        "plan": studio.plan,
        "inspect": studio.inspect,
        "train": studio.train,
        "stop": stop,
        "resume": lambda asked: studio.resume(name_in(asked)),
        "export": lambda asked: studio.export(name_in(asked), text_in(asked, "format")),
        "listen": lambda asked: studio.listen(name_in(asked)),
        "commands": lambda asked: studio.run_commands(name_in(asked)),
    }
    for name, work in answers.items():
        app.add_api_route(f"/studio/{name}", json_route(work, token, COMMAND), methods=["POST"])
    line = Line(8)

    async def upload(request: Request, folder: str = "", label: str = "") -> Response:
        admit(request, token, COMMAND)
        with line.place():
            try:
                place = await asyncio.to_thread(_place, studio, folder, label)
            except UnfreezeError as error:
                raise Refused(422, str(error), "Change it and drop the files again.") from None
            async with received(request, studio.limits) as file:
                if not label and not is_table_name(file.name):
                    raise Refused(422, "the class of the recording is missing", "Name it.")
                try:
                    kept = await asyncio.to_thread(studio.keep, file.path, file.name, place)
                except Refused as refused:
                    # The request has been read to its end: nothing is left to wait for.
                    return JSONResponse(refused.content(), status_code=refused.status)
                except UnfreezeError as error:
                    raise Refused(422, str(error), "Then drop the file again.") from None
        return JSONResponse(kept)

    async def report(name: str, key: str = "") -> Response:
        if not hmac.compare_digest(key.encode(), _key(token, name).encode()):
            raise Refused(403, "the address is not complete", "Open the report from the page.")
        try:
            content = await asyncio.to_thread(studio.report, name)
        except UnfreezeError as error:
            raise Refused(404, str(error), "Open the report from the page.") from None
        policy = {"Content-Security-Policy": _REPORT_POLICY}
        return Response(content, media_type=HTML, headers=policy)

    app.add_api_route("/studio/upload", upload, methods=["POST"])
    app.add_api_route("/report/{name}", report, methods=["GET"])
    add_refusals(app)
    return guarded(app, local_only=local_only, policy=UPLOADS_POLICY)


def _place(studio: Studio, folder: str, label: str) -> Path:
    """Where a file goes: a table may be of a whole folder."""
    if label:
        return class_folder(studio.folder, folder, label)
    return data_folder(studio.folder, folder)


def _key(token: str, name: str) -> str:
    """What the address of a run's report needs."""
    return hmac.new(token.encode(), os.fsencode(name), hashlib.sha256).hexdigest()
