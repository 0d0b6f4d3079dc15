"""Imports run one way, and nothing heavy is imported where nothing is computed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project

MAY_IMPORT = {"cache": {"cache"}, "stages": {"stages", "cache"}, "pipeline": {"pipeline", "stages", "cache"}}
HEAVY = ("tensorflow", "keras", "sklearn", "matplotlib", "scipy", "torch", "jax")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert imported(path) & MAY_IMPORT.keys() <= MAY_IMPORT[package], path


def test_only_the_shard_imports_h5py_and_the_cache_knows_no_keras_and_no_images() -> None:
    for path in (ROOT / "cache").rglob("*.py"):
        assert not imported(path) & {"keras", "tensorflow", "PIL"}, path
    users = {path.name for top in MAY_IMPORT for path in (ROOT / top).rglob("*.py") if "h5py" in imported(path)}
    assert users == {"shard.py"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["status"], ["graph", "artifacts/make/x.mk"], ["leaderboard"], ["report"], ["heads"], ["features"]],
)
def test_a_no_op_imports_nothing_heavy(project: Project, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pipeline.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
