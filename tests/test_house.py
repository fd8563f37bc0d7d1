"""The house keeps its own rules: no circles, whole modules, each name once, tests that mirror."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "src" / "unfreeze", ROOT / "tests"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
FEWEST_LINES, MOST_LINES = 40, 600
ANY_LENGTH = {"version.py"}
# Tests of more than one module: of the package's names, rules, laws and texts.
OF_MANY_MODULES = {
    "core/test_laws.py",
    "test_docs.py",
    "test_examples.py",
    "test_hostile_text.py",
    "test_house.py",
    "test_init.py",
    "test_notebooks.py",
}


def find_circle(imports: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def only_hands_on(text: str) -> bool:
    """Whether a module does nothing but import names for others to import."""
    body = ast.parse(text).body
    doing = [
        part
        for part in body
        if not isinstance(part, ast.Import | ast.ImportFrom)
        and not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        and not (isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "__all__")
    ]
    return len(body) > 1 and not doing


def without_a_module(tests: Iterable[Path], modules: Iterable[Path]) -> list[str]:
    """Tests that are not named after a module of the folder that they mirror."""
    names: dict[Path, list[str]] = {}
    for module in modules:
        names.setdefault(module.parent, []).append(module.stem)

    def has_module(test: Path) -> bool:
        aspect = f"{test.stem.removeprefix('test_')}_"
        return any(aspect.startswith(f"{name}_") for name in names.get(test.parent, ()))

    return [test.as_posix() for test in tests if not has_module(test)]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports of the package: lazily and for types alone, too."""
    graph = grimp.build_graph("unfreeze", exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_import_circle(imports: dict[str, set[str]]) -> None:
    assert len(imports) > len(MODULES)
    circle = find_circle(imports)
    assert circle is None


def test_no_import_circle_between_rooms(imports: dict[str, set[str]]) -> None:
    rooms: dict[str, set[str]] = {}
    for module, imported in imports.items():
        for other in imported:
            room, of = (".".join(name.split(".")[:2]) for name in (module, other))
            if room != of:
                rooms.setdefault(room, set()).add(of)
    assert len(rooms) > 10
    circle = find_circle(rooms)
    assert circle is None


def test_each_name_once() -> None:
    names = Counter(path.name for path in MODULES)
    assert [name for name, times in names.items() if times > 1] == []


def test_no_module_only_hands_on_names() -> None:
    inits = PACKAGE.glob("*/**/__init__.py")
    found = [p for p in (*MODULES, *inits) if only_hands_on(p.read_text(encoding="utf-8"))]
    assert found == []


def test_a_module_is_one_whole_idea() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    odd = {
        path.relative_to(PACKAGE).as_posix(): length
        for path, length in lengths.items()
        if path.name not in ANY_LENGTH and not FEWEST_LINES <= length <= MOST_LINES
    }
    assert odd == {}


def test_tests_mirror_the_modules() -> None:
    tests = [path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py"))]
    modules = [path.relative_to(PACKAGE) for path in MODULES]
    benchmarks = [path.relative_to(ROOT) for path in (ROOT / "benchmarks").glob("*.py")]
    packages = [path.parent.relative_to(ROOT) for path in ROOT.glob("benchmarks/*/__init__.py")]
    unknown = without_a_module(tests, (*modules, *benchmarks, *packages))
    assert set(unknown) - OF_MANY_MODULES == set()


def test_these_rules_can_be_broken() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert only_hands_on('"""Doc."""\nfrom a import b\n__all__ = ["b"]\n')
    assert not only_hands_on('"""Doc."""\n')
    assert not only_hands_on("from a import b\n\nc = b()\n")
    tests = [Path("core/test_fit.py"), Path("core/test_fit_stages.py"), Path("core/test_fits.py")]
    assert without_a_module(tests, [Path("core/fit.py")]) == ["core/test_fits.py"]
    assert without_a_module(tests[:1], [Path("audio/fit.py")]) == ["core/test_fit.py"]


def test_every_test_runs_somewhere() -> None:
    """On PyTorch all of them run but those marked for another backend, which CI selects there."""
    # A skip of a test's own would be on PyTorch, and nobody would see it run nowhere.
    for path in TESTS.rglob("*.py"):
        for skip in re.findall(r"skipif\((.*\n?.*)", path.read_text(encoding="utf-8")):
            assert "core" not in path.parts, path.name
            assert "backend" not in skip, path.name
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = ROOT / ".ci" / "run"  # not in a source distribution
    commands = ci.read_text(encoding="utf-8") if ci.is_file() else None
    for text in filter(None, (commands, readme)):
        assert re.search(r"KERAS_BACKEND=torch \S+ -m pytest\n", text)
    marked = r'^\S+ -m pytest -m "not slow and \(on_each_backend or needs_backend\)"$'
    assert commands is None or re.search(marked, commands, re.MULTILINE)
