"""The house, computed from the source: imports run one way, in no circle, and nothing heavy lies on a light path.

The order of the rooms, from the top: whoever looks for a thing passes each room once. An import within a function counts, and one
for types alone too: both say that a file knows of another.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

ROOMS = [
    "headstart",
    "pipeline.__main__",
    "pipeline.cli",
    "pipeline.commands",
    "pipeline.common",
    "pipeline.targets",
    "pipeline.config",
    "pipeline.demo",
    "stages.serve",
    "stages.export",
    "stages.search",
    "stages.predict",
    "stages.report",
    "stages.audit",
    "stages.explain",
    "stages.sweeps",
    "stages.heads",
    "stages.training",
    "stages.extract",
    "stages.bases",
    "stages.data",
    "stages.fields",
    "stages.progress",
    "stages.imports",
    "cache",
]
# Seconds to import: kept from every path that computes nothing.
HEAVY = {
    "tensorflow",
    "keras",
    "sklearn",
    "matplotlib",
    "scipy",
    "torch",
    "jax",
    "openvino",
    "nncf",
    "optuna",
    "dask",
    "distributed",
    "cleanlab",
    "onnxruntime",
    "tf2onnx",
    "ai_edge_litert",
    "keras_hub",
    "starlette",
    "uvicorn",
    "watchfiles",
}
# The application of serve is one of Starlette's, its connections are Uvicorn's; who serves imports them.
AT_HOME = {"stages.serve.app": {"starlette"}, "stages.serve.connection": {"uvicorn"}}
# Tenths of a second: kept from every command until it has something to do.
WEIGHTY = {"numpy", "PIL", "h5py", "joblib", "skops", "jinja2", "onnx"}
MOST_LINES = 300


@cache
def files() -> dict[str, Path]:
    """Every file of the product, by the name of its module."""
    found = [
        ROOT / "headstart.py",
        *(path for top in ("cache", "stages", "pipeline") for path in (ROOT / top).rglob("*.py")),
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in found]
    return dict(zip(names, found, strict=True))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def names_of(node: ast.AST) -> Iterator[str]:
    """What a statement imports: modules, and names in modules, which may be modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import: write the module's whole name"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str, modules: dict[str, Path]) -> str | None:
    """The module of this project that is meant by a name that is imported."""
    return name if name in modules else name.rpartition(".")[0] if name.rpartition(".")[0] in modules else None


def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """For each module those that it imports."""
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = [name for node in ast.walk(parsed(path)) for name in names_of(node)]
        found[module] = {target for name in names if (target := ours(name, modules))} - {module}
    return found


def hidden(tree: ast.AST, modules: dict[str, Path]) -> list[str]:
    """Modules of this project that a file names in a text, as it does who imports them past these tests: ``import_module("…")``."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if "." in text and text in modules and modules[text].name != "__init__.py"]


def room_of(module: str) -> int:
    """The place of its room, from the top. The packages that hold rooms stand below all: they import nothing of ours."""
    (room,) = [room for room in ROOMS if module == room or module.startswith(f"{room}.")] or [None]
    assert room or module in ("pipeline", "stages"), (
        f"{module} stands in no room: put it into one of {', '.join(ROOMS)}"
    )
    return ROOMS.index(room) if room else len(ROOMS)


def climbs(graph: dict[str, set[str]]) -> list[str]:
    """Arrows from a room to one above it."""
    return [
        f"{module} imports {target}, which stands above it: move what both need down"
        for module, targets in graph.items()
        for target in sorted(targets)
        if room_of(target) < room_of(module)
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, in order; empty where there is none."""
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for target in sorted(graph[module]):
            if found := follow(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := follow(module, []))), [])


@cache
def at_import(path: Path) -> list[str]:
    """What a file imports when it is imported itself: not what its functions import, nor what is for types alone."""
    waiting: list[ast.AST] = [parsed(path)]
    found = []
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            found += names_of(node)
            for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr) and not for_types:
                waiting.append(node)
    return found


def loaded_with(module: str, modules: dict[str, Path]) -> dict[str, str]:
    """Libraries that are imported with a module, each with the file that does it."""
    seen, waiting, found = {module}, [module], {}
    while waiting:
        at = waiting.pop()
        for name in at_import(modules[at]):
            target = ours(name, modules)
            if target is None:
                found.setdefault(name.split(".")[0], at)
            elif target not in seen:
                seen.add(target)
                waiting.append(target)
    return found


def test_every_file_stands_in_a_room() -> None:
    assert len([room_of(module) for module in files()]) == len(files())


def test_no_arrow_climbs() -> None:
    assert climbs(arrows(files())) == []


def test_no_import_is_hidden() -> None:
    found = {module: names for module, path in files().items() if (names := hidden(parsed(path), files()))}
    assert not found, "import it by a statement, so that these tests see it"


def test_no_circle() -> None:
    found = circle(arrows(files()))
    assert not found, f"{' → '.join([*found, found[0]])}: move what two of them need into a file below both"


def test_files_stay_within_what_can_be_held_in_the_head() -> None:
    others = [path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in [*files().values(), *others]}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}, "divide them by their jobs"


@pytest.mark.parametrize("module", sorted(files()))
def test_no_module_imports_anything_heavy_before_it_computes(module: str) -> None:
    heavy = {
        name: by for name, by in loaded_with(module, files()).items() if name in HEAVY - AT_HOME.get(module, set())
    }
    assert not heavy, "import it within the function that needs it"


@pytest.mark.parametrize("module", [name for name in sorted(files()) if name.startswith("pipeline.")])
def test_a_no_op_stays_light(module: str) -> None:
    heavy = {name: by for name, by in loaded_with(module, files()).items() if name in WEIGHTY}
    assert not heavy, "import it within the function that needs it"


def test_the_cache_knows_no_keras_and_no_images_and_one_file_alone_knows_h5py() -> None:
    users = {library: set() for library in ("h5py", "keras", "tensorflow", "PIL")}  # type: ignore[var-annotated]
    for module, path in files().items():
        for node in ast.walk(parsed(path)):
            for name in names_of(node):
                users.get(name.split(".")[0], set()).add(module)
    assert users["h5py"] == {"cache.shard"}
    assert not {
        module for library in ("keras", "tensorflow", "PIL") for module in users[library] if module.startswith("cache")
    }


def test_these_tests_can_fail() -> None:
    graph = {"stages.data.walk": {"cache.memo"}, "cache.memo": set(), "stages.data.scan": {"stages.data.walk"}}
    assert climbs(graph) == [] == circle(graph)
    turned = graph | {"cache.memo": {"stages.data.walk"}}
    assert climbs(turned) == ["cache.memo imports stages.data.walk, which stands above it: move what both need down"]
    assert circle(turned) == ["stages.data.walk", "cache.memo"]
    with pytest.raises(AssertionError, match=r"stages\.stray stands in no room"):
        room_of("stages.stray")
    past = ast.parse('import_module("stages.report.page")')
    assert hidden(past, files()) == ["stages.report.page"]
