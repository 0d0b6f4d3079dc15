"""What earlier versions wrote stays up to date: nothing is extracted, trained or written again.

``old/VERSION.tar.gz`` is a small project (two bases, three layers, heads of every kind, three sweeps, the report) as that version
left it. It is never made anew: a change that fails here makes everybody's cache stale, and needs a reason that is written down.
"""

import hashlib
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT, Project

from cache import FeatureStore, Manifest
from stages.heads.results import read_result

OLD = sorted((ROOT / "tests" / "old").glob("*.tar.gz"))


@pytest.fixture(scope="module", params=OLD, ids=[path.name for path in OLD])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    project = Project(folder)
    text = project.config.read_text()
    project.create(text)
    return project


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files that hold results; memos of stats are made anew where inodes are others."""
    paths = [path for part in ("features", "heads", "sweeps", "report") for path in (folder / part).rglob("*")]
    kept = [path for path in paths if path.is_file() and path.name not in (".lock", "index.json")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in [*kept, folder / "manifest.json"]}


def test_all_of_it_is_up_to_date_but_for_the_page(old: Project) -> None:
    """The page has other contents from version to version. It is written again, of heads and sweeps that stay as they are."""
    before = contents(old.artifacts)
    status = old.headstart("status")
    stale = [line for line in status.out.splitlines() if "stale" in line]
    assert status.code == 0 and len(stale) == 1 and "this headstart writes another page" in stale[0], status.out
    # 3 layers of 2 bases, 4 heads, 3 sweeps and their winners.
    assert status.out.count("up to date") == 13, status.out
    for arguments in (("features",), ("heads",), ("sweep",), ("report",), ("report", "sweep")):
        outcome = old.make(*arguments)
        written = arguments == ("report",)
        assert outcome.code == 0 and (outcome.extracted, outcome.trained, outcome.reported) == (0, [], written), (
            outcome.out
        )
    assert old.make("-q", "report", "sweep").code == 0
    after = contents(old.artifacts)
    assert {path for path in after if before.get(path) != after[path]} == {str(old.artifacts / "report" / "index.html")}


def test_none_of_it_is_damaged_or_garbage(old: Project) -> None:
    assert old.headstart("verify").code == 0
    assert "nothing to remove" in old.headstart("prune").out


def test_features_and_heads_can_be_read(old: Project) -> None:
    manifest = Manifest.load(old.artifacts / "manifest.json")
    for folder in (old.artifacts / "features").iterdir():
        store = FeatureStore(folder)
        assert store.read(record.sha256 for record in manifest.records).shape[0] == len(manifest.records)
    for name in ("dense", "ridge@mobile", "own", "width", "strength", "drawn"):
        expected = read_result(old.artifacts / "heads" / name)
        assert expected is not None
        outcome = old.headstart("predict", "photos", "--head", name)
        assert outcome.code == 0 and outcome.out.count(": 3 (3 0.") + outcome.out.count(": 6 (6 0.") > 0, outcome.out


def test_images_added_to_it_extend_it(old: Project) -> None:
    """Last, as it changes the project: new images are compared with the old rows, and extracted alone."""
    (old.photos / "3" / "turned.png").write_bytes((old.photos / "6" / "0006.png").read_bytes() + b" ")
    outcome = old.make("features")
    assert outcome.code == 0 and outcome.out.count("1 images extracted") == 2, outcome.out
