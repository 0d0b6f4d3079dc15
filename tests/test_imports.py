"""What the command line leaves out when it imports large libraries, and what it compiled and keeps for the next process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from stages.bases import compilation
from stages.heads.baselines import SklearnHead
from stages.heads.spec import SklearnSpec

# In a process of its own, as the command line does it: a dense head first, then baselines.
COMMANDS = """
import sys, numpy as np
from fractions import Fraction
from pathlib import Path
from cache.errors import HeadError
from stages import imports
imports.leave_out()
from stages.heads.dense import DenseHead
from stages.training import together
from stages.training.spec import DenseSpec
together.SECONDS_TO_COMPILE = 0.0  # what is trained for so short a time is else not compiled, and nothing kept
X, y = np.eye(8, 4, dtype=np.float32), np.arange(8) % 2
DenseHead(DenseSpec(kind="dense", pool="avg", units=[2], epochs=1), ["a", "b"]).fit(X, y, X, y)
assert "tensorflow" in sys.modules
print([name for name in ("sklearn", "matplotlib", "pandas", "jax", "skops") if name in sys.modules])
from stages.heads.baselines import SklearnHead
from stages.heads.spec import SklearnSpec
spec = SklearnSpec(kind="sklearn", estimator="GradientBoostingClassifier", params={"n_estimators": 3})
head = SklearnHead(spec, ["a", "b"]).fit(X, y, X, y)
head.save(Path("model.skops"), {})
assert np.array_equal(SklearnHead.load(Path("model.skops"), spec, ["a", "b"]).predict_proba(X), head.predict_proba(X))
np.save("probabilities.npy", head.predict_proba(X))
head._pipeline.foreign = Fraction(1, 3)
head.save(Path("foreign.skops"), {})
try:
    SklearnHead.load(Path("foreign.skops"), spec, ["a", "b"])
except HeadError as error:
    print(error)
print("sklearn.gaussian_process" in sys.modules, "pandas" in sys.modules)
import pandas
print(pandas.__name__)
"""


def test_what_a_command_imports_and_keeps(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "kept")}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    refused = "foreign.skops: expected types of scikit-learn, found fractions.Fraction; not loaded"
    assert done.stdout.splitlines() == ["[]", refused, "False False", "pandas"]
    # What it saved is read by any other process.
    spec = SklearnSpec(kind="sklearn", estimator="GradientBoostingClassifier", params={"n_estimators": 3})
    read = SklearnHead.load(tmp_path / "model.skops", spec, ["a", "b"])
    probabilities = np.load(tmp_path / "probabilities.npy")
    assert np.array_equal(read.predict_proba(np.eye(8, 4, dtype=np.float32)), probabilities)
    (folder,) = (tmp_path / "kept" / "headstart").iterdir()
    kept = [path.name for path in folder.iterdir() if path.name != compilation.WHOLE]
    assert kept and list(compilation.read_memo(folder / compilation.WHOLE)) == sorted(kept)
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_what_is_kept_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """A file that a killed process left is removed, and so is one that lost its end, and the oldest of too many."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compilation, "KEPT", 3)
    monkeypatch.setattr(compilation.atexit, "register", lambda *rest: None)
    folder = compilation._folder(backend)
    for i, name in enumerate(["oldest", "old", "cut", "new", "newest"]):
        (folder / name).write_bytes(b"code" * 10)
        os.utime(folder / name, (i, i))
    compilation._record(folder)
    (folder / "cut").write_bytes(b"code")
    os.utime(folder / "cut", (2, 2))
    (folder / "killed").write_bytes(b"co")
    assert compilation._folder(backend) == folder
    assert {path.name for path in folder.iterdir()} == {"new", "newest", compilation.WHOLE}


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    compilation.keep_compiled("tensorflow")
    assert "TF_XLA_FLAGS" not in os.environ
