"""What must never happen: killed runs, full disks, two at once. The user's images and the cache survive."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project, store_of, write_photos
from forked import Forked, slowed

from cache import FeatureStore

COUNTING = "import runpy; runpy.run_module('counting', run_name='__main__')"
# Larger features than the other tests', so that there is something to fill a disk with.
WIDE = CONFIG.replace('weights = "random"', 'weights = "random"\nlayer = "block2_pool"')


def contents(store: FeatureStore) -> dict[str, np.ndarray]:
    return dict(zip(store.digests(), store.read(store.digests()), strict=True))


def wait_for(what: Callable[[], object], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def leftovers(project: Project) -> list[Path]:
    return list(project.artifacts.rglob(".tmp-*"))


# Kills


def test_a_killed_extraction_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL at random moments; the rest is extracted, with no more than a shard's worth done twice for each kill."""
    images, shard, kills = 360, 16, 3
    project = Project(tmp_path / "killed").create()
    write_photos(project.photos, {"cat": images // 2, "dog": images // 2})
    log = project.folder / "log"
    rng = random.Random(0)

    def batches() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    for _ in range(kills):
        before, more = batches(), rng.randint(1, 4)
        process = Forked(project.folder, str(project.config), str(log), code=COUNTING)
        wait_for(lambda at=before: batches() > at)  # type: ignore[misc]
        begun = time.monotonic()
        wait_for(lambda at=before + more: batches() > at)  # type: ignore[misc]
        # Within the batch after these, if it takes as long: on a quick machine, all of them take a quarter of a second.
        time.sleep(rng.uniform(0, (time.monotonic() - begun) / more))
        process.kill()
        process.wait()
        assert store_of(project).verify() == {}
    process = Forked(project.folder, str(project.config), str(log), code=COUNTING)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    through_the_base = sum(map(int, log.read_text().split()))
    # Batches of 8: what is counted may lag one behind what is written.
    assert images - 8 * kills <= through_the_base <= images + kills * shard
    assert not leftovers(project)

    whole = Project(tmp_path / "whole").create()
    shutil.copytree(project.photos, whole.photos)
    assert whole.headstart("features").extracted == images
    found, expected = contents(store_of(project)), contents(store_of(whole))
    assert found.keys() == expected.keys()
    for digest, row in expected.items():
        np.testing.assert_allclose(found[digest], row, rtol=2e-3, atol=1e-3)


def test_ctrl_c_keeps_what_is_done_and_exits_with_130(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").create(CONFIG.replace("shard_images = 16", "shard_images = 40"))
    write_photos(project.photos, {"cat": 200, "dog": 200})
    process = Forked(project.folder, "features", code=slowed(0.1))
    wait_for(lambda: list(project.artifacts.glob("features/*/shard-00001.h5")))
    os.killpg(process.pid, signal.SIGINT)
    out = process.communicate()[0]
    assert process.returncode == 130, out
    kept, total = map(int, re.search(r"interrupted; (\d+) of (\d+) images are kept", out).groups())  # type: ignore[union-attr]
    assert total == 400 and 64 <= kept < 400 and len(store_of(project)) == kept
    assert not leftovers(project) and "Traceback" not in out
    assert project.headstart("features").extracted == 400 - kept


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here (needs root); test_a_file_size_limit stands in")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_line_and_the_cache_is_as_it_was(small_disk: Path) -> None:
    project = Project(small_disk.parent / "p").create(WIDE.replace("[cache]", f'[cache]\ndir = "{small_disk}"'))
    write_photos(project.photos, {"cat": 300, "dog": 300})
    outcome = project.headstart("features")
    errors = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]
    assert outcome.code == 1 and len(errors) == 1 and "No space left on device" in errors[0], outcome.out
    assert "Traceback" not in outcome.out and not list(small_disk.rglob(".tmp-*"))
    store = FeatureStore(next((small_disk / "features").iterdir()))
    assert store.verify() == {} and 0 < len(store) < 600
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    assert project.headstart("features").extracted == 600 - len(store)


def test_a_file_size_limit(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").create(WIDE.replace("shard_images = 16", "shard_images = 200"))
    write_photos(project.photos, {"cat": 100, "dog": 100})
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from pipeline.cli import main\nmain()"
    )
    done = Forked(project.folder, "features", code=code)
    out, _ = done.communicate()
    errors = [line for line in out.splitlines() if line.startswith("headstart: ")]
    assert done.returncode == 1 and len(errors) == 1 and "File too large" in errors[0], out
    assert not leftovers(project) and not list(project.artifacts.glob("features/*/shard-*"))


def test_a_read_only_cache_can_be_read_and_says_so_when_it_must_be_written(project: Project) -> None:
    """With a mount where this is root, whom permissions do not stop, else with permissions."""
    frozen = project.artifacts
    if os.geteuid() == 0:
        for command in (["mount", "--bind", frozen, frozen], ["mount", "-o", "remount,ro,bind", frozen]):
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("this root may not mount (in a container)")
    else:
        subprocess.run(["chmod", "-R", "a-w", frozen], check=True)
    try:
        assert "stale" not in project.headstart("status").out
        assert project.headstart("predict", "photos/cat", "--head", "ridge").code == 0
        project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
        outcome = project.headstart("heads")
        errors = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]
        assert outcome.code == 1 and len(errors) == 1 and ("Read-only" in errors[0] or "denied" in errors[0]), (
            outcome.out
        )
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", frozen], check=True)
        else:
            subprocess.run(["chmod", "-R", "u+w", frozen], check=True)
    assert project.headstart("verify").code == 0
    assert project.headstart("heads").trained == ["ridge"]


# Two at once


def test_two_extractions_at_once_share_the_work(tmp_path: Path) -> None:
    project = Project(tmp_path / "p").create()
    write_photos(project.photos, {"cat": 100, "dog": 100})
    both = [Forked(project.folder, "features") for _ in range(2)]
    outs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert sum(int(n) for out in outs for n in re.findall(r"(\d+) images extracted", out)) == 200
    assert len(store_of(project)) == 200 and store_of(project).verify() == {}


def test_the_second_waits_and_says_for_whom(project: Project) -> None:
    write_photos(project.photos, {"cat": 22, "dog": 22}, first=700)
    store = store_of(project)
    with store.writing():
        process = Forked(project.folder, "features")
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("waiting"):
                break
        assert f"waiting for process {os.getpid()} on " in lines[-1]
    out = process.communicate()[0]
    assert process.returncode == 0 and "images extracted" in out
