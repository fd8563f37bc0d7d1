"""README, docs and CHANGELOG say what the code does: commands, defaults, modules, links."""

import importlib
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import unfreeze
from unfreeze.audio import background_clips, sound_file
from unfreeze.backbones.registry import get_backbone
from unfreeze.cli.app import app
from unfreeze.compare.strategies import STRATEGIES, CompareOptions
from unfreeze.core import array_files, boundary, presets, run_state, stage_fit
from unfreeze.core.schedule import Plateau, ReduceRate, Schedule, Stage
from unfreeze.detection import events, live
from unfreeze.detection.event_evaluation import THRESHOLDS
from unfreeze.detection.event_scoring import Rules
from unfreeze.detection.live import live_hop
from unfreeze.export import check
from unfreeze.export.formats import FORMATS
from unfreeze.pipeline import calibration, inference, thresholds, train_options, wish
from unfreeze.pipeline.train_options import TrainOptions
from unfreeze.review import clip_queue, retraining

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unfreeze"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
}
ROOMS = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
COMMANDS = get_command(app).commands

each_page = pytest.mark.parametrize("page", PAGES)


def prose(page: str) -> str:
    """A page with every run of blanks as one, so that a sentence may break anywhere."""
    return " ".join(PAGES[page].split())


def blocks(page: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(r"^```\w*\n(.*?)^```", PAGES[page], re.M | re.S)


def spans(text: str) -> list[str]:
    """What stands between backticks, outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    # A paragraph ends a span, so that one stray backtick spoils no more than that.
    return [" ".join(span.split()) for span in re.findall(r"`((?:[^`\n]|\n(?!\n))+)`", text)]


def table(page: str, first: str) -> list[list[str]]:
    """The rows below the header whose first cell is `first`, without backticks and bold."""
    lines = iter(PAGES[page].splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    else:
        raise AssertionError(f"{page} has no table that begins with {first!r}")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        rows.append([cell.strip().strip("*").replace("`", "") for cell in cells])
    return rows[1:]


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command line in the code blocks and between the backticks."""
    for code in chain(blocks(page), spans(PAGES[page])):
        for line in code.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:\||&&)\s", line):
                if re.match(r"(\$ |\S+=\S+ |\S+/)*(unfreeze|python3?)( |$)", part):
                    yield shlex.split(re.sub(r"^\$ ", "", part), comments=True)


# Commands and options


@each_page
def test_commands_of_unfreeze_exist_with_their_options(page):
    for program, *words in commands(page):
        if Path(program).name != "unfreeze" or not words or words == ["--help"]:
            continue
        name, *rest = words
        assert name in COMMANDS, f"there is no command: unfreeze {name}"
        context = COMMANDS[name].context_class(COMMANDS[name], info_name=name)
        COMMANDS[name].make_parser(context).parse_args(rest)


def test_a_wrong_option_in_a_doc_would_be_found(monkeypatch):
    for wrong in ("unfreeze train x --epoch-count 3", "unfreeze trane x", "unfreeze train --out"):
        monkeypatch.setitem(PAGES, "wrong.md", f"```sh\n{wrong}\n```\n")
        with pytest.raises(Exception, match=r"[Nn]o such option|no command|requires an argument"):
            test_commands_of_unfreeze_exist_with_their_options("wrong.md")


@each_page
def test_python_commands_name_modules_files_and_options_that_exist(page):
    for words in commands(page):
        while "=" in words[0]:
            words = words[1:]
        if not Path(words[0]).name.startswith("python") or words[1:2] != ["-m"]:
            continue
        module, rest = words[2], words[3:]
        if module in ("venv", "pytest"):
            named = [word for word in rest if word.startswith("tests/")]
        else:
            place = ROOT / module.replace(".", "/")
            file = place.with_suffix(".py")
            # A package's options are in any of its modules.
            files = [file] if file.is_file() else sorted(place.glob("*.py"))
            source = "\n".join(file.read_text("utf-8") for file in files)
            assert source, f"there is no module {module}"
            for option in (word for word in rest if word.startswith("--")):
                assert f'"{option}"' in source, f"{module} has no {option}"
            named = [word for word in rest if word.startswith("benchmarks/")]
        for name in named:
            assert (ROOT / name).exists(), name


@each_page
def test_options_in_the_text_exist(page):
    known = {
        option
        for command in COMMANDS.values()
        for param in command.params
        for option in (*param.opts, *param.secondary_opts)
    }
    for file in ROOT.glob("benchmarks/**/*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', file.read_text("utf-8")))
    named = [span.split()[0] for span in spans(PAGES[page]) if span.startswith("--")]
    assert not set(named) - known


# Modules, files, links


def exists(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@each_page
def test_modules_and_files_that_are_named_exist(page):
    for span in chain(spans(PAGES[page]), *(block.split() for block in blocks(page))):
        for word in re.findall(r"(?<![\w.])unfreeze(?:\.[A-Za-z_]+)+", span):
            assert word == "unfreeze.json" or exists(word), word
        for word in re.findall(r"^benchmarks(?:\.\w+)+$", span):
            place = ROOT / word.replace(".", "/")
            assert place.is_dir() or place.with_suffix(".py").is_file(), word
        for word in re.findall(r"^[\w-]+/[\w./-]+$", span):
            first = word.split("/")[0]
            if first in ("src", "tests", "benchmarks", "docs", "fuzz"):
                assert (ROOT / word).exists(), word
            elif first == "unfreeze":
                assert (SOURCE.parent / word).exists(), word
            elif first in ROOMS:
                assert (SOURCE / word).with_suffix(".py").is_file(), word


def test_the_reference_has_every_public_name_once():
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    named = re.findall(r"^::: (\S+)$", "\n".join(page.read_text("utf-8") for page in pages), re.M)
    things = {name: getattr(unfreeze, name) for name in unfreeze.__all__ if name != "__version__"}
    public = [f"{thing.__module__}.{thing.__qualname__}" for thing in things.values()]
    assert sorted(named) == sorted(public)


def test_the_map_in_the_design_names_every_module_once():
    section = PAGES["docs/design.md"].partition("## The map")[2].partition("\n## ")[0]
    named: list[str] = []
    for part in section.split("\n### "):
        title = re.findall(r"`(\w+)`", part.splitlines()[0]) if part.startswith("`") else []
        for line in part.splitlines():
            if line.startswith("| `"):
                names = spans(line.split(" | ")[0])
                named += [
                    name if "/" in name or not title else f"{title[0]}/{name}" for name in names
                ]
    files = (path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCE.rglob("*.py"))
    real = sorted(name for name in files if not name.endswith("__init__"))
    assert not [name for name, count in Counter(named).items() if count > 1]
    assert sorted(named) == real


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@each_page
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_the_sections_that_the_site_lists_exist():
    """MkDocs looks for pages only."""
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    places = [line.rpartition(": ")[2] for line in nav.splitlines() if ": " in line]
    made = {"reference/commands.md", "changes.md"}
    for place in places:
        page, _, anchor = place.partition("/#")
        if anchor:
            assert anchor in anchors(PAGES[f"docs/{page}.md"]), place
        else:
            assert place in made or (ROOT / "docs" / place).is_file(), place


def test_every_doc_and_picture_is_linked():
    docs = {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")}
    assert docs == set(re.findall(r"\]\(docs/([\w-]+\.md)\)", PAGES["README.md"]))
    pictures = {path.name for path in (ROOT / "docs" / "images").iterdir()}
    assert pictures == set(re.findall(r"images/([\w-]+\.(?:png|gif))", "".join(PAGES.values())))


# Defaults and limits


def short(value: Any) -> str:
    """A value as the tables write it."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def power(value: float) -> str:
    """A power of ten as the docs write it: 1e-4."""
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].strip("+"), f"{value:.0e}")


def a_megabyte(limit: Callable[[int], float]) -> float:
    """What a limit on a file grows by with each megabyte."""
    return limit(1_000_000) - limit(0)


def default(command: str, name: str) -> Any:
    """The default of a command's option."""
    (param,) = (p for p in COMMANDS[command].params if name in p.opts)
    return param.default


def patterns(stage: Stage) -> str:
    """Which layers a stage trains, as the table of presets has it."""
    return stage.train if isinstance(stage.train, str) else ", ".join(stage.train)


def of(kind: type) -> dict[str, Any]:
    """The defaults of a class of plain data, by the names of its arguments."""
    return {name: given.default for name, given in signature(kind).parameters.items()}


STAGE, TRAIN, COMPARE = of(Stage), of(TrainOptions), of(CompareOptions)
FRONT_END = get_backbone("yamnet").front_end
PATCH = FRONT_END.patch_frames * FRONT_END.hop / FRONT_END.sample_rate
HOP = FRONT_END.patch_hop * FRONT_END.hop / FRONT_END.sample_rate
FLOAT, HALF, INT8 = (check.TOLERANCES[kind] for kind in (None, "float16", "int8"))

STATED = [
    ("README.md", r"The default schedule, `(\w+)`", presets.DEFAULT),
    ("README.md", r"another ([\d.]+) % decide", 100 * TRAIN["validation"]),
    ("README.md", r"([\d.]+) % of the clips are kept for the test", 100 * TRAIN["test"]),
    ("README.md", r"a batch is (\d+) patches", train_options.DEFAULT_BATCH),
    ("README.md", r"the seed is (\d+)", TRAIN["seed"]),
    ("README.md", r"If they are more than (\d+) %", 100 * TRAIN["max_bad"]),
    ("README.md", r"in `(unfreeze-demo)`", str(default("demo", "--out"))),
    ("README.md", r"below (1e-4), checked at every export", power(FLOAT.largest)),
    ("docs/stages.md", r"The default of `unfreeze train` is `(\w+)`", presets.DEFAULT),
    ("docs/stages.md", r"`\"(\w+)\"` \(default\) \| the lowest", of(Schedule)["monitor"]),
    ("docs/stages.md", r"`\"(\w+)\"` \(default\) \| fixed", STAGE["batch_norm"]),
    ("docs/stages.md", r"`\"(\w+)\"` \(default\) \| cache if", STAGE["cache"]),
    ("docs/stages.md", r"at least (\d+) % of the stage's work", 100 * boundary._WORTH_A_CACHE),
    ("docs/boundaries.md", r"at least (\d+) % of its work", 100 * boundary._WORTH_A_CACHE),
    ("docs/boundaries.md", r"what trains counts as (three)", {3.0: "three"}[boundary._TRAINING]),
    ("docs/boundaries.md", r"puts (\d+) steps into one call", stage_fit._STEPS),
    ("docs/stages.md", r"less than (\d+) % of the time", 100 * run_state._SHARE),
    ("docs/reliability.md", r"less than (\d+) % of the time", 100 * run_state._SHARE),
    ("docs/reliability.md", r"`--seed` \(default (\d+)\)", TRAIN["seed"]),
    ("docs/reliability.md", r"(\d+) s without a sign of life", sound_file.PATIENCE),
    ("docs/reliability.md", r"(\d+) s of processor time and", sound_file.decode_seconds(0)),
    ("docs/reliability.md", r"(\d+) s per megabyte; 1.1", a_megabyte(sound_file.decode_seconds)),
    ("docs/reliability.md", r"(1\.\d) GB of memory", round(sound_file.MEMORY / 1e9, 1)),
    ("docs/reliability.md", r"(\d+) hours of sound and", sound_file.longest_seconds(0) / 3600),
    (
        "docs/reliability.md",
        r"(\d+) hours per megabyte",
        a_megabyte(sound_file.longest_seconds) / 3600,
    ),
    ("docs/reliability.md", r"(\d+) hours for a training clip", sound_file.LONGEST_CLIP / 3600),
    ("docs/reliability.md", r"samples up to (1e\d+)", power(sound_file.LARGEST_SAMPLE)),
    ("docs/reliability.md", r"WAV files of up to (\d+) MB", sound_file._WHOLE >> 20),
    ("docs/design.md", r"`(\w+)` is the default", presets.DEFAULT),
    ("docs/evidence.md", r"`(\w+)` is the default", presets.DEFAULT),
    ("docs/design.md", r"small ones \(up to (\d+) MB\)", array_files.HELD >> 20),
    ("docs/performance.md", r"Large caches \(from (\d+) MB\)", array_files.HELD >> 20),
    ("docs/design.md", r"stay within (0\.\d+) and", calibration.THRESHOLDS[0]),
    ("docs/design.md", r"within 0\.1 and (0\.\d+)", calibration.THRESHOLDS[1]),
    ("docs/detection.md", r"Each window of (0\.\d+) s", PATCH),
    ("docs/detection.md", r"up to the window \| (0\.\d+) \|", HOP),
    ("docs/detection.md", r"over which scores are averaged \| (0\.\d+) \|", PATCH),
    ("docs/detection.md", r"otherwise (0\.\d+) \|", calibration.DEFAULT_THRESHOLD),
    ("docs/detection.md", r"falls below \*\*(half)\*\*", {0.5: "half"}[events.LOW_SHARE]),
    ("docs/detection.md", r"Windows are (0\.\d+) s apart", live_hop(FRONT_END)),
    ("docs/detection.md", r"when it is (one) second behind", {1.0: "one"}[live.BEHIND]),
    ("docs/detection.md", r"waits longer than (\d+) s", live.LIMIT),
    ("docs/detection.md", r"batches of (\d+) windows", inference.batch_size(FRONT_END)),
    *[
        ("docs/detection.md", rf"`--{name} ([\d.]+)` \|", getattr(Rules(), name))
        for name in ("share", "iou", "collar", "segment")
    ],
    ("docs/detection.md", r"counted what each of (\d+) thresholds", len(thresholds.LEVELS)),
    ("docs/design.md", r"What each of (\d+) does", len(thresholds.LEVELS)),
    ("docs/detection.md", r"with a precision of at least (0\.\d+);", wish.FLOOR),
    ("CHANGELOG.md", r"now have a precision of at\s+least (0\.\d+)", wish.FLOOR),
    ("docs/detection.md", r"(\d+) more thresholds", len(THRESHOLDS)),
    ("docs/detection.md", r"more thresholds, from (0\.\d+) to", round(THRESHOLDS[0], 4)),
    ("docs/detection.md", r"more thresholds, from 0\.\d+ to (0\.\d+)", round(THRESHOLDS[-1], 4)),
    ("docs/review.md", r"clips of (\d+) seconds", default("segments", "--length")),
    ("docs/review.md", r"stretches of (\d+) seconds", default("review", "--length")),
    ("docs/review.md", r"\*\*Train again\*\*, from (\d+) labels on", retraining.FEWEST),
    ("docs/review.md", r"from the (third) label on", {3: "third"}[retraining.EARLY]),
    ("docs/review.md", r"into (four) strata", {4: "four"}[len(clip_queue.STRATA) - 1]),
    ("docs/review.md", r"at most (\d+) per class \(", default("segments", "--per-class")),
    ("docs/review.md", r"at most (twice) as many patches", {2.0: "twice"}[background_clips.SHARE]),
    (
        "docs/review.md",
        r"pieces of ([\d.]+) s",
        round((background_clips.PIECE - 1) * HOP + PATCH, 2),
    ),
    ("docs/compare.md", r"--out comparison # ([\w, ]+) unfreeze", ", ".join(STRATEGIES)),
    ("docs/compare.md", r"--seeds`, default (\d+)", COMPARE["seeds"]),
    ("docs/compare.md", r"(\d+) times by default", default("tune", "--trials")),
    ("docs/compare.md", r"on (\d+) inner splits", default("tune", "--splits")),
    ("docs/export.md", r"up to (\d+) test clips", check.MOST_TESTED),
    ("docs/export.md", r"the first (\d+) s of each", check.LONGEST),
    ("docs/export.md", r"up to (\d+) training clips", check.MOST_CALIBRATED),
    ("docs/export.md", r"training patches within (1e-4)", power(FRONT_END.tolerance)),
    ("docs/export.md", r"`--length (\w+)` \(the default\)", default("export", "--length")),
    ("docs/serve.md", r"a multiple of 0\.01 \| (0\.\d+) \|", HOP),
]


@pytest.mark.parametrize(("page", "pattern", "value"), STATED, ids=[s[1] for s in STATED])
def test_what_is_stated_is_what_the_code_has(page, pattern, value):
    found = re.findall(pattern, prose(page))
    assert found, f"{page} no longer says {pattern}"
    expected = value if isinstance(value, str) else f"{round(value, 6):g}"
    assert set(found) == {expected}


def test_the_opset_of_the_docs_is_that_of_the_exporter():
    to_onnx = pytest.importorskip("unfreeze.export.to_onnx", exc_type=ImportError)
    test_what_is_stated_is_what_the_code_has("docs/export.md", r"opset (\d+)", to_onnx.OPSET)


@each_page
def test_only_the_default_schedule_is_called_the_default(page):
    for name in re.findall(r"`(\w+)` \(the default", prose(page)):
        assert name in (presets.DEFAULT, "any"), name
    for name in re.findall(r"[Tt]he default (?:schedule )?`(\w+)`", prose(page)):
        assert name == presets.DEFAULT


def test_the_table_of_a_stages_defaults():
    stated = {}
    for row in table("docs/stages.md", "field"):
        cells = [cell.split(" (")[0] for cell in row if cell]
        stated.update(zip(cells[::2], cells[1::2], strict=True))
    assert stated == {name: short(value) for name, value in STAGE.items() if name != "name"}


def test_the_table_of_presets():
    stated: dict[str, list[list[str]]] = {}
    for row in table("docs/stages.md", "preset"):
        name = row[0].removesuffix(" (the default)")
        stated.setdefault(name or list(stated)[-1], []).append(row[1:])
    assert list(stated) != []
    for name, make in presets.PRESETS.items():
        rows = []
        for stage in make():
            end = ""
            if stage.until is not None:
                assert isinstance(stage.until, Plateau)
                assert stage.until.metric == "best"
                end = f"{stage.until.patience} epochs without a gain"
            falling = "" if stage.decay is None else ", falling"
            rate = "solved" if stage.solve else f"{stage.learning_rate:g}{falling}"
            rows.append(
                [stage.name, patterns(stage), str(stage.epochs), rate, end, stage.batch_norm]
            )
        assert stated.pop(name) == rows, name
    assert not stated
    recipe = next(iter(presets.classic()))
    assert f"batches of {recipe.batch_size}," in prose("docs/stages.md")
    assert recipe.reduce == ReduceRate(factor=0.5, patience=3)
    assert "halved after 3 epochs without a gain" in prose("docs/stages.md")
    assert {n for n, make in presets.PRESETS.items() if make().monitor != "auto"} == {
        "classic",
        "probe",
        "probe_tune",
    }


def test_the_table_of_changes_names_each():
    named = set(re.findall(r"\+(\w+)=", " ".join(r[0] for r in table("docs/compare.md", "change"))))
    assert named == {
        *presets.CHANGES,
        presets.MONITOR,
        "fuse",
        "taps",
        "augment",
        "class_weight",
    }


def test_the_tables_of_exports():
    rows = {row[0]: row for row in table("docs/export.md", "format")}
    assert list(rows) == list(FORMATS)
    for name, form in FORMATS.items():
        assert ["no" if cell == "no" else "yes" for cell in rows[name][3:]] == [
            "yes" if kind in form.quantize else "no" for kind in ("float16", "int8")
        ]
    allowed = [
        [float(cell) for cell in (row[1], row[2], row[3])]
        for row in table("docs/export.md", "precision")
    ]
    assert allowed == [[kind.largest, kind.mean, kind.embedding] for kind in (FLOAT, HALF, INT8)]


def test_blocks_of_python_use_public_names():
    for page in PAGES:
        for block in blocks(page):
            for name in re.findall(r"(?<![\w.])unfreeze\.([A-Za-z_]+)", block):
                assert name == "json" or name in unfreeze.__all__, f"{page}: unfreeze.{name}"


# The changelog


def test_the_changelog_is_by_version_with_one_section_of_each_kind():
    text = PAGES["CHANGELOG.md"]
    versions = re.findall(r"^## (.*)$", text, re.M)
    assert re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", versions[-1])
    if ".dev" in unfreeze.__version__:
        assert versions[0] == "Unreleased"
    else:
        assert versions[0].split(" - ")[0] == unfreeze.__version__
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.M)
        assert kinds
        assert len(set(kinds)) == len(kinds)
        assert set(kinds) <= {"Added", "Changed", "Fixed", "Removed"}


def test_the_dockerfile_copies_and_installs_what_there_is():
    """Docker itself is not needed to see that."""
    text = (ROOT / "Dockerfile").read_text()
    kept = {
        x.lstrip("!") for x in (ROOT / ".dockerignore").read_text().splitlines() if x[:1] == "!"
    }
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What the build reads beside the sources.
    assert {project["readme"], *project["license-files"]} <= copied
    extras = re.findall(r'pip install "\.\[(.+)\]"', text)
    assert {name for line in extras for name in line.split(",")} <= set(
        project["optional-dependencies"]
    )
    targets = set(re.findall(r"^FROM base AS (\w+)$", text, re.M))
    assert targets == {"full", "light"}
    assert set(re.findall(r"--target (\w+)", (ROOT / "docs/light.md").read_text())) == targets
