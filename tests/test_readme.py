"""Every command of the README is run, word for word but for the environment's folder and the configuration."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, write_image

README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Each line of the shell blocks, without its comment."""
    return [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


IN_CI = [command for command in commands() if command in ("make demo", "make test", "make test-extras")]
RUN_HERE = [command for command in commands() if command not in IN_CI]


def test_the_two_commands_are_what_ci_runs() -> None:
    assert IN_CI == ["make demo", "make test", "make test-extras"]
    for command in IN_CI:
        assert re.search(rf"\b{command}\b", CI)


@pytest.mark.parametrize("command", RUN_HERE)
def test_commands(project: Project, command: str) -> None:
    write_image(project.photos / "new.jpg", 5)
    if "sweep" in command and "[sweeps" not in project.config.read_text():
        project.config.write_text(project.config.read_text() + blocks("toml")[1])
    if command.startswith("make "):
        outcome = project.make(*command.split()[1:])
    else:
        words = command.split()
        assert words[0] == ".venv/bin/headstart"
        outcome = project.headstart(*words[1:])
    assert outcome.code == 0, outcome.out
    if "--csv" in command:
        assert (project.folder / "predictions.csv").read_text().startswith("id,label\n")


def test_the_notebook_lines(project: Project) -> None:
    (code,) = blocks("python")
    store = next((project.artifacts / "features").iterdir())
    code = re.sub(r'FeatureStore\("[^"]*"\)', f"FeatureStore({str(store)!r})", code)
    code += "\nimport sys\nassert X.shape[1:] == (1, 1, 512) and x.shape == (1, 1, 1, 512), X.shape\nassert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=project.folder, env={"PYTHONPATH": str(ROOT)}, check=True)


def test_the_configuration_shown_is_valid_and_is_what_is_shipped(tmp_path: Path) -> None:
    from pipeline.config import load_config

    block, _ = blocks("toml")
    (tmp_path / "c.toml").write_text('[data]\nroot = "photos"\n' + block)
    assert load_config(tmp_path / "c.toml").bases == load_config(ROOT / "headstart.toml").bases


def test_the_leaderboard_shown_has_the_columns_that_are_printed(project: Project) -> None:
    shown = blocks("text")[0].splitlines()[0].split()
    assert shown == project.headstart("leaderboard").out.splitlines()[1].split()


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_demo_is_small_and_can_be_written_twice(tmp_path: Path) -> None:
    from pipeline.demo import IMAGES, write_demo

    write_demo(tmp_path / "demo")
    images = list((tmp_path / "demo").rglob("*.png"))
    assert len(images) == IMAGES == 600
    shutil.rmtree(tmp_path / "demo" / "digits" / "3")
    write_demo(tmp_path / "demo")
    assert len(list((tmp_path / "demo").rglob("*.png"))) == 600
