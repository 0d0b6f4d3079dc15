"""The documentation is true: commands, configurations, Python, links, and tables of fields in README.md and docs/*.md.

Commands run word for word but for the environment's folder and the configuration. They share one small project, which is up to
date. What must not be in one process with TensorFlow runs in a process of its own; the rest runs in this one.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project, write_image

import headstart as headstart_module
from headstart import ConfigError, HeadError, load_features, load_head
from pipeline.cli import app
from pipeline.config import load_config
from stages.bases.spec import BaseSpec
from stages.data.spec import DataSpec
from stages.data.views import ViewsSpec
from stages.extract.cost import CostSpec
from stages.extract.spec import CacheSpec
from stages.fields import Spec
from stages.heads.spec import EnsembleSpec, KerasSpec, SklearnSpec
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec
from stages.report.spec import ReportSpec
from stages.sweeps.spec import SweepSpec
from stages.training.spec import CommonSpec, DenseSpec, TrainedSpec

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
IN_CI = ("make demo", "make test", "make test-extras")
# What is not run, and why not.
NOT_RUN = {
    'python -m pip install -e ".[gpu]"': "downloads gigabytes of CUDA libraries, and needs a GPU to be of use",
    'python -m pip install -e ".[heic]"': "installs into the environment that the tests run in; tests/extras/test_heic.py needs it",
    "python -m pip install ipykernel": "installs into the environment that the tests run in",
    "python -m ipykernel install --user --name headstart": "writes into the home folder",
    "rsync -a USER@HOST:PROJECT/artifacts/ artifacts/": "needs another machine",
    "dask scheduler": "runs until it is stopped; tests/extras/test_cluster.py has a cluster",
    "dask worker tcp://HOST:8786 --nthreads 1": "needs another machine",
    "headstart features --on tcp://HOST:8786": "needs a cluster; tests/extras/test_cluster.py has one",
    "headstart heads --on tcp://HOST:8786": "needs a cluster; tests/extras/test_cluster.py has one",
    "python -m pytest tests/test_splits.py": "tests within tests; CI runs this file with the others",
}
STORE = "artifacts/features/vgg16-block5_pool-150-b3e00cf5fc1c"
# A sweep of the name that the pages use, of a head that needs no TensorFlow.
SWEEP = '[sweeps.width]\nhead = "logreg"\ngrid = { params = { C = [0.1, 1.0] }, pool = ["avg", "max"] }\n'


def blocks(language: str, page: str | None = None) -> list[str]:
    """Fenced blocks of one page, or of all."""
    texts = PAGES.values() if page is None else [PAGES[page]]
    return [
        block for text in texts for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def commands() -> list[str]:
    """Each line of the shell blocks once, without its comment and the environment's folder."""
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return list(dict.fromkeys(line.removeprefix(".venv/bin/") for line in lines if line))


def plain(markdown: str) -> str:
    """Markdown without what the checks are not about: fenced blocks."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def tables(page: str, heading: str) -> list[list[list[str]]]:
    """The tables under a heading, up to the next one: rows of cells, the first row being the header."""
    _, _, after = PAGES[page].partition(f"\n## {heading}\n")
    assert after, f"{page}: no heading {heading!r}"
    section = re.split(r"^## ", after, flags=re.MULTILINE)[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()] for table in found]
    return [[table[0], *table[2:]] for table in rows]


def first_cells(page: str, heading: str, number: int = 0) -> list[str]:
    """What stands in the first column of a table, without the marks of code."""
    return [row[0].strip("| `") for row in tables(page, heading)[number][1:]]


@pytest.fixture(scope="module")
def documented(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which all commands can be run, one after another."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    shutil.copytree(built.folder, folder, symlinks=True)
    project = Project(folder)
    write_image(project.folder / "new.jpg", 5)
    project.config.write_text(project.config.read_text() + SWEEP)
    return project


Run = Callable[..., str]


@pytest.fixture
def headstart(documented: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``headstart …`` in this process, so that TensorFlow is loaded once for all of them; gives what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(documented.folder)
        try:
            app(list(arguments))
        except SystemExit as end:
            assert not end.code, capfd.readouterr()
        return "".join(capfd.readouterr())

    return run


def test_every_command_is_run_here_or_by_ci_or_has_a_reason_not_to_be() -> None:
    assert [command for command in commands() if command in IN_CI] == list(IN_CI)
    for command in IN_CI:
        assert re.search(rf"\b{command}\b", CI)
    assert NOT_RUN.keys() <= set(commands()), "reasons for commands that no page has"


@pytest.mark.parametrize("command", [each for each in commands() if each not in (*IN_CI, *NOT_RUN)])
def test_commands(documented: Project, headstart: Run, command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        outcome = documented.make(*arguments)
        assert outcome.code == 0, outcome.out
        return
    assert program == "headstart", command
    out = headstart(*arguments)
    if "--csv" in arguments:
        assert (documented.folder / "predictions.csv").read_text().startswith("id,label\n")
    if arguments[0] == "layers":
        (shown,) = [block for block in blocks("text", "docs/bases.md") if block.startswith("layer")]
        assert set(shown.splitlines()) <= set(out.splitlines())


def test_the_leaderboard_shown_has_the_columns_that_are_printed(headstart: Run) -> None:
    shown = blocks("text", "README.md")[0].splitlines()[0].split()
    assert shown in [line.split() for line in headstart("leaderboard").splitlines()]


def test_python_that_needs_no_tensorflow(documented: Project) -> None:
    store = next((documented.artifacts / "features").iterdir()).relative_to(documented.folder)
    light = [block.replace(STORE, str(store)) for block in blocks("python") if "keras" not in block]
    assert len(light) == 7
    code = "\n".join([*light, "assert X.shape[1:] == (1, 1, 512) and x.shape == (1, 1, 1, 512), X.shape"])
    code += "\nimport sys\nassert 'tensorflow' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=documented.folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_errors_that_docstrings_name_can_be_imported_from_headstart(documented: Project) -> None:
    said = [word for text in (load_features.__doc__, load_head.__doc__) for word in re.findall(r"\w+Error", text or "")]
    assert set(said) - {"ValueError"} <= set(headstart_module.__all__) and len(set(said)) == 4
    with pytest.raises(ConfigError, match="no base 'nope'"):
        load_features(documented.config, "train", base="nope")
    with pytest.raises(HeadError, match="no head 'nope'"):
        load_head(documented.config, "nope")


def test_the_keras_loop(documented: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("python", "docs/notebooks.md") if "keras" in block]
    monkeypatch.chdir(documented.folder)
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["model"].output_shape == (None, 2)


def test_the_head_of_ones_own() -> None:
    (code,) = [block for block in blocks("python", "docs/heads.md") if "keras" in block]
    space: dict[str, Any] = {}
    exec(code, space)
    import keras

    model = keras.Sequential([keras.layers.Input((4, 4, 512)), *space["build"]((4, 4, 512), 3)])
    assert model.output_shape == (None, 64)


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_configuration_shown_is_valid(tmp_path: Path, block: str) -> None:
    (tmp_path / "my_heads.py").write_text("def build(shape, n_classes): ...")
    (tmp_path / "c.toml").write_text(block if "[data]" in block else f'[data]\nroot = "photos"\n{block}')
    load_config(tmp_path / "c.toml")


def test_the_first_configurations_shown_are_what_is_shipped() -> None:
    shipped = tomllib.loads((ROOT / "headstart.toml").read_text("utf-8"))
    for page, section in (("docs/data.md", "data"), ("docs/bases.md", "base")):
        assert tomllib.loads(blocks("toml", page)[0])[section] == shipped[section]


TUNED = "Fields of all these kinds"
EPOCHS, EVERY = "Fields of heads that are trained in epochs", "Fields of every head"
REQUIRED = {"root": "photos", "head": "x", "estimator": "SVC", "build": "a.py:b", "dir": "artifacts"}
FIELDS: list[tuple[type[Spec], str, list[str], dict[str, Any]]] = [
    (DataSpec, "docs/data.md", ["All fields of `[data]`"], {}),
    (BaseSpec, "docs/bases.md", ["All fields of `[base]` and `[bases.NAME]`"], {}),
    (ViewsSpec, "docs/views.md", ["All fields of `[views]`"], {}),
    (CacheSpec, "docs/cache.md", ["All fields of `[cache]`"], {}),
    (ReportSpec, "docs/numbers.md", ["All fields of `[report]`"], {}),
    (CostSpec, "docs/bases.md", ["All fields of `[cost]`"], {"per_hour": 2.5}),
    (SweepSpec, "docs/sweeps.md", ["All fields of `[sweeps.NAME]`"], {}),
    (DenseSpec, "docs/heads.md", [EVERY, EPOCHS, "Dense heads"], {"kind": "dense"}),
    (SklearnSpec, "docs/heads.md", [EVERY, "scikit-learn classifiers"], {"kind": "sklearn"}),
    (KerasSpec, "docs/heads.md", [EVERY, EPOCHS, "A head of your own"], {"kind": "keras"}),
    (EnsembleSpec, "docs/ensembles.md", ["All fields of an ensemble"], {"kind": "ensemble", "sweep": "x"}),
    (FinetuneSpec, "docs/finetuning.md", ["All fields of fine-tuning", TUNED], {"kind": "finetune"}),
    (EndToEndSpec, "docs/finetuning.md", ["All fields of `end_to_end`", TUNED], {"kind": "end_to_end"}),
    (CnnSpec, "docs/finetuning.md", ["All fields of `cnn`", TUNED], {"kind": "cnn"}),
]
UNSET = {"code"}  # of a head of one's own: the digest of its file, which nobody sets


@pytest.mark.parametrize(("spec", "page", "headings", "kind"), FIELDS, ids=[spec.__name__ for spec, *_ in FIELDS])
def test_tables_have_all_fields_with_their_defaults(
    spec: type[Spec], page: str, headings: list[str], kind: dict[str, Any]
) -> None:
    rows = [row for heading in headings for row in tables(page, heading)[0][1:]]
    shown = {row[0].strip("| `"): row[1] for row in rows}
    refused = set(CommonSpec.model_fields) if spec is EnsembleSpec else set[str]()
    if TUNED in headings:  # what is as in all heads that are trained in epochs stands on another page
        same = TrainedSpec.model_fields
        refused = {name for name in same if name not in shown and spec.model_fields[name].default == same[name].default}
        refused |= {"base", "layers"} - shown.keys()
    assert len(shown) == len(rows) and shown.keys() == spec.model_fields.keys() - UNSET - refused
    needed = {name: value for name, value in (REQUIRED | kind).items() if name in spec.model_fields}
    paths = {
        name: Path(value) for name, value in needed.items() if name in ("root", "dir")
    }  # as load_config gives them
    unset = spec.model_validate(needed | paths)
    for name, default in shown.items():
        expected = spec.model_fields[name].default if name in kind else getattr(unset, name)
        if default == "–":
            assert expected is None, name
        elif default == "required":
            assert spec.model_fields[name].is_required(), name
        elif name != "dir":  # its default is that of load_config
            value = tomllib.loads(f"value = {default.strip('`')}")["value"]
            # What is read otherwise than it is written, such as input_size, is compared after it was read.
            assert value == expected or getattr(spec.model_validate(needed | paths | {name: value}), name) == expected


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The fields of a result as the page names them."""
    whole = ("spec", "versions", "files", "feature_shapes", "parts", "winner", "failures")
    places = {"metrics": "SPLIT", "per_class": "CLASS", "leaders": "N", "effects": "FIELD"}
    if path and path[-1] in places:
        each = value.values() if isinstance(value, dict) else value
        for item in each:
            yield from leaves(item, (*path, places[path[-1]]))
    elif path and path[-1] == "FIELD":
        for item in value:
            yield from leaves(item, (*path, "N"))
    elif isinstance(value, dict) and not (path and path[-1] in (*whole, "params")):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    else:
        yield ".".join(path)


def test_every_field_of_a_result_is_explained_and_exists(documented: Project) -> None:
    result = json.loads((documented.artifacts / "heads" / "logreg" / "result.json").read_text())
    assert set(first_cells("docs/numbers.md", "Every field of `result.json`")) == set(leaves(result))


def test_every_field_of_a_sweep_is_explained_and_exists(documented: Project, headstart: Run) -> None:
    headstart("sweep")
    folder = documented.artifacts / "sweeps" / "width"
    result = json.loads((folder / "result.json").read_text())
    assert set(first_cells("docs/numbers.md", "Every field of a sweep's `result.json`")) == set(leaves(result))
    columns = (folder / "trials.csv").read_text().splitlines()[0].split(",")
    varied = ["pool", "params.C"]
    assert columns[1:3] == varied
    assert first_cells("docs/numbers.md", "Every column of `trials.csv`") == [c for c in columns if c not in varied]


def test_every_command_and_option_is_explained_and_exists(headstart: Run) -> None:
    there = re.findall(r"^  ([a-z]+)  ", headstart("--help").partition("Commands:")[2], re.MULTILINE)
    shown, options = tables("docs/configuration.md", "Commands")
    assert [row[0].strip("| `") for row in shown[1:]] == there
    of_all = {"--config", "--debug", "--help"}
    for row in shown[1:]:
        command = row[0].strip("| `")
        found = set(re.findall(r"^  (--[a-z-]+)", headstart(command, "--help"), re.MULTILINE)) - of_all
        assert set(re.findall(r"--[a-z-]+", row[-1])) == found, command
    explained = {row[0].strip("| `") for row in options[1:]}
    assert explained == {option for row in shown[1:] for option in re.findall(r"--[a-z-]+", row[-1])}


def test_every_target_and_extra_is_explained_and_exists() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = [name.removeprefix("make ") for name in first_cells("docs/configuration.md", "Make targets")]
    assert sorted(listed) == sorted(set(targets) - {"help"})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert first_cells("docs/configuration.md", "Extras") == list(project["optional-dependencies"])


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", plain(PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere_and_every_page_can_be_reached() -> None:
    leads: dict[str, set[str]] = {}
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", plain(text)):
            name, _, anchor = target.partition("#")
            path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
            assert path.exists(), f"{page}: {target}"
            other = path.relative_to(ROOT.resolve()).as_posix() if name else page
            assert not anchor or anchor in anchors(other), f"{page}: {target}"
            leads.setdefault(page, set()).add(other)
    reached, todo = set[str](), ["README.md"]
    while todo:
        page = todo.pop()
        if page in PAGES and page not in reached:
            reached.add(page)
            todo += leads.get(page, ())
    assert reached == PAGES.keys()


def test_files_that_are_named_are_there() -> None:
    text = "\n".join(PAGES.values())
    for name in re.findall(r"`((?:cache|stages|pipeline|tests|bench)/[\w/.]*|headstart\.py)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(?:(?:.venv/bin/)?python -m )?bench\.(\w+)`", text):
        assert (ROOT / "bench" / f"{name}.py").exists(), name
    rooms = {f"stages/{path.parent.name}/" for path in (ROOT / "stages").glob("*/__init__.py")}
    assert rooms <= set(first_cells("docs/developing.md", "The rooms"))


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_no_figure_is_missing() -> None:
    assert [page for page, text in PAGES.items() if "TODO" in text] == []


def test_the_demo_is_small_and_can_be_written_twice(tmp_path: Path) -> None:
    from pipeline.demo import IMAGES, write_demo

    write_demo(tmp_path / "demo")
    images = list((tmp_path / "demo").rglob("*.png"))
    assert len(images) == IMAGES == 600
    shutil.rmtree(tmp_path / "demo" / "digits" / "3")
    write_demo(tmp_path / "demo")
    assert len(list((tmp_path / "demo").rglob("*.png"))) == 600
