"""A command that finds nothing to do imports nothing heavy, seen in a process of its own."""

import subprocess
import sys

import pytest
from conftest import ROOT, Project
from test_rooms import HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["status"],
        ["graph", "artifacts/make/x.mk"],
        ["leaderboard"],
        ["report"],
        ["heads"],
        ["features"],
        ["audit", "--help"],
    ],
)
def test_a_no_op_imports_nothing_heavy(project: Project, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pipeline.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('HEAVY', [name for name in {sorted(HEAVY)!r} if name in sys.modules])"
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
