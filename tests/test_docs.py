"""The documentation is true: the commands, configurations and Python in README.md and docs/*.md.

Commands run word for word but for the environment's folder and the configuration. They share one small project, which is up to
date. What must not be in one process with TensorFlow runs in a process of its own; the rest runs in this one.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project
from documentation import blocks, documented_project

import headstart as headstart_module
from headstart import ConfigError, HeadError, load_features, load_head
from pipeline.cli import app
from pipeline.config.load import load_config

CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
IN_CI = ("make demo", "make test", "make test-extras")


SERVES = "runs until it is stopped, and needs an extra; tests/extras/test_serving.py runs it"
ASKS = "needs a server; tests/extras/test_serving.py runs it beside one"
# What is not run, and why not.
NOT_RUN = {
    'python -m pip install -e ".[gpu]"': "downloads gigabytes of CUDA libraries, and needs a GPU to be of use",
    'python -m pip install -e ".[heic]"': "installs into the environment that the tests run in; tests/extras/test_heic.py needs it",
    'python -m pip install -e ".[export]"': "installs into the environment that the tests run in; tests/extras/test_export_formats.py needs it",
    "python -m pip install ipykernel": "installs into the environment that the tests run in",
    "python -m ipykernel install --user --name headstart": "writes into the home folder",
    "rsync -a USER@HOST:PROJECT/artifacts/ artifacts/": "needs another machine",
    "make watch": "runs until it is stopped; tests/extras/test_watching.py follows edits",
    "headstart serve": SERVES,
    "headstart serve --host 0.0.0.0 --port 9000": SERVES,
    "headstart serve --head logreg --min-accuracy 0.6 --max-megabytes 5 --max-megapixels 12 --max-requests 16 --max-seconds 10": SERVES,
    "curl --data-binary @new.jpg http://127.0.0.1:8770/predict": ASKS,
    'curl -F image=@new.jpg "http://127.0.0.1:8770/predict?head=logreg&min_accuracy=0.6"': ASKS,
    "curl http://127.0.0.1:8770/heads": ASKS,
    "dask scheduler": "runs until it is stopped; tests/extras/test_cluster.py has a cluster",
    "dask worker tcp://HOST:8786 --nthreads 1": "needs another machine",
    "headstart features --on tcp://HOST:8786": "needs a cluster; tests/extras/test_cluster.py has one",
    "headstart heads --on tcp://HOST:8786": "needs a cluster; tests/extras/test_cluster.py has one",
    "python -m pytest tests/test_splits.py": "tests within tests; CI runs this file with the others",
}


STORE = "artifacts/features/vgg16-block5_pool-150-b3e00cf5fc1c"


def commands() -> list[str]:
    """Each line of the shell blocks once, without its comment and the environment's folder."""
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return list(dict.fromkeys(line.removeprefix(".venv/bin/") for line in lines if line))


@pytest.fixture(scope="module")
def documented(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which all commands can be run, one after another."""
    return documented_project(built, tmp_path_factory.mktemp("docs") / "project")


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
    if arguments[0] == "predict" and "--csv" in arguments:
        assert (documented.folder / "predictions.csv").read_text().startswith("id,label\n")
    if arguments[0] == "layers":
        (shown,) = [block for block in blocks("text", "docs/bases.md") if block.startswith("layer")]
        assert set(shown.splitlines()) <= set(out.splitlines())


def test_the_leaderboard_shown_has_the_columns_that_are_printed(headstart: Run) -> None:
    shown = blocks("text", "README.md")[0].splitlines()[0].split()
    assert shown in [line.split() for line in headstart("leaderboard").splitlines()]


def test_python_that_needs_no_tensorflow(documented: Project) -> None:
    store = next((documented.artifacts / "features").iterdir()).relative_to(documented.folder)
    light = [block.replace(STORE, str(store)) for block in blocks("python") if not re.search("keras|urlopen", block)]
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


def test_the_demo_is_small_and_can_be_written_twice(tmp_path: Path) -> None:
    from pipeline.demo import IMAGES, write_demo

    write_demo(tmp_path / "demo")
    images = list((tmp_path / "demo").rglob("*.png"))
    assert len(images) == IMAGES == 600
    shutil.rmtree(tmp_path / "demo" / "digits" / "3")
    write_demo(tmp_path / "demo")
    assert len(list((tmp_path / "demo").rglob("*.png"))) == 600
