"""The benches can be started as files and as modules, and print what several runs came to as ranges."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from bench.runs import machine, merged

BENCHES = sorted(path for path in (ROOT / "bench").glob("*.py"))


def test_no_bench_hides_a_package() -> None:
    """`python bench/x.py` puts bench/ in front of everything else that is imported."""
    taken = {path.name for path in ROOT.iterdir()} | set(sys.stdlib_module_names)
    assert not {path.stem for path in BENCHES} & taken


@pytest.mark.parametrize("form", [["bench/noop.py"], ["-m", "bench.noop"]], ids=["file", "module"])
def test_it_starts(form: list[str]) -> None:
    done = subprocess.run([sys.executable, *form, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--images" in done.stdout, done.stderr


# The others are imported by these.
STARTED = [path for path in BENCHES if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", STARTED, ids=lambda path: path.stem)
def test_it_says_what_it_takes(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And does nothing else, in this process, where what they import is there already."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert not end.value.code and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_it_imports_what_there_is(path: Path) -> None:
    """Names that were moved are found without running it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in ("cache", "stages", "pipeline")
        ):
            there = ROOT / f"{node.module.replace('.', '/')}.py"
            names = {alias.name for alias in node.names}
            if there.exists():
                text = there.read_text()
                assert all(re.search(rf"^(class |def )?{name}\b", text, re.MULTILINE) for name in names), node.module
            else:
                folder = there.with_suffix("")
                known = {path.stem for path in folder.glob("*.py")} | set(
                    re.findall(r"\w+", (folder / "__init__.py").read_text())
                )
                assert names <= known, node.module


def test_several_runs_become_ranges() -> None:
    first = ["2,000 rows", "8,000 rows", "dense256     10.8x  0.66", "only once 1"]
    second = ["2,000 rows", "8,001 rows", "dense256      3.6x  0.61"]
    assert merged([first, second]) == ["2,000 rows", "8,000 to 8,001 rows", "dense256     3.6 to 10.8x  0.61 to 0.66"]
    assert "cores" in machine()


def test_fewer_images_than_a_batch_have_a_ceiling_too() -> None:
    from bench.extract import Ours

    sizes: list[int] = []
    base: Any = SimpleNamespace(batch_size=32, _engine=lambda batch: sizes.append(len(batch)))
    ours = Ours(base, Path(), SimpleNamespace(), None)  # type: ignore[arg-type]
    assert ours.ceiling(np.zeros((16, 4, 4, 3), np.uint8)) > 0 and sizes == [32]
    assert ours.ceiling(np.zeros((70, 4, 4, 3), np.uint8)) > 0 and sizes == [32, 32, 32]
