"""Extraction by the workers of a real Dask cluster: the same rows, and a worker that dies costs a retry and nothing else."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, HEADSTART, ROOT, Project, store_of, write_photos

from cache import FeatureStore
from cache.shard import read_shard

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
CLUSTER = """
import sys, time
from dask.distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]
        print(cluster.scheduler_address, *pids, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    """The address of a scheduler with two worker processes, and the workers' process ids."""
    script = tmp_path_factory.mktemp("cluster") / "cluster.py"
    script.write_text(CLUSTER)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    address, *pids = process.stdout.readline().split()
    yield address, [int(pid) for pid in pids]
    process.stdin.close()
    process.wait(60)


def contents(project: Project) -> dict[str, np.ndarray]:
    store = store_of(project)
    assert store.verify() == {}
    return dict(zip(store.digests(), store.read(store.digests()), strict=True))


@pytest.fixture
def alone(tmp_path: Path) -> Project:
    """A project of 300 images, extracted by one process."""
    project = Project(tmp_path / "alone").create()
    write_photos(project.photos, {"cat": 150, "dog": 150})
    assert project.headstart("features").extracted == 300
    return project


def test_two_workers_give_the_rows_of_one_process_and_a_killed_one_costs_nothing_else(
    alone: Project, tmp_path: Path, cluster: tuple[str, list[int]]
) -> None:
    address, pids = cluster
    project = Project(tmp_path / "shared").create(CONFIG)
    alone.photos.rename(project.photos)
    (project.photos / "cat" / "bad.jpg").write_bytes(b"no image")
    process = subprocess.Popen(
        [*HEADSTART, "features", "--on", address],
        cwd=project.folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 90
    while not list(project.artifacts.glob("features/*/shard-*.h5")) and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(pids[0], signal.SIGKILL)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert "300 images extracted" in out and "skipped: cat/bad.jpg" in out and "on 2 workers" in out
    found, expected = contents(project), contents(alone)
    assert found.keys() == expected.keys()
    for digest, row in expected.items():
        np.testing.assert_allclose(found[digest], row, rtol=1e-3, atol=1e-3 * np.abs(row).max())
    assert not list(project.artifacts.rglob(".tmp-*"))
    # What was added later goes there too, compared with what is stored.
    write_photos(project.photos, {"cow": 20}, first=7000)
    again = project.headstart("features", "--on", address)
    assert again.code == 0 and again.extracted == 20, again.out


def test_views_come_from_the_workers_as_from_one_process(tmp_path: Path, cluster: tuple[str, list[int]]) -> None:
    shared, alone = (
        Project(tmp_path / name).create(CONFIG.replace("batch_size = 8", "batch_size = 8\nviews = 1"))
        for name in ("shared", "alone")
    )
    for project, options in ((shared, ("--on", cluster[0])), (alone, ())):
        write_photos(project.photos, {"cat": 20, "dog": 20}, first=40_000)
        outcome = project.headstart("features", *options)
        assert outcome.code == 0, outcome.out
    found, expected = (
        {each.folder.name: each for each in map(FeatureStore, p.artifacts.glob("features/*"))} for p in (shared, alone)
    )
    assert found.keys() == expected.keys() and len(found) == 2
    for name, store in expected.items():
        digests = sorted(store.digests())
        rows = store.read(digests)
        assert sorted(found[name].digests()) == digests
        np.testing.assert_allclose(found[name].read(digests), rows, rtol=1e-3, atol=1e-3 * np.abs(rows).max())


def test_what_an_estimator_does_in_parallel_goes_to_the_cluster(alone: Project, cluster: tuple[str, list[int]]) -> None:
    from dask.distributed import Client

    def tasks() -> set[str]:
        with Client(cluster[0]) as client:
            return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes)))

    forest = '[heads.forest]\nkind = "sklearn"\nestimator = "RandomForestClassifier"\nparams = { n_estimators = 20 }\n'
    alone.config.write_text(alone.config.read_text() + forest)
    assert not any("_parallel_build_trees" in name for name in tasks())
    fitted = alone.headstart("heads", "--on", cluster[0])
    assert fitted.code == 0 and fitted.trained == ["forest", "logreg", "ridge"], fitted.out
    assert any("_parallel_build_trees" in name for name in tasks()), tasks()


def test_an_interrupted_run_leaves_nothing_that_writes(tmp_path: Path, cluster: tuple[str, list[int]]) -> None:
    """Workers that are still at a shard discard it: the run that follows has each row once."""
    project = Project(tmp_path).create()
    write_photos(project.photos, {"cat": 200, "dog": 200}, first=20_000)
    process = subprocess.Popen(
        [*HEADSTART, "features", "--on", cluster[0]],
        cwd=project.folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 90
    while not list(project.artifacts.glob("features/*/shard-*.h5")) and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in out, out
    assert project.headstart("features").code == 0
    time.sleep(3)
    store = store_of(project)
    rows = [digest for info in (read_shard(path)[1] for path in store.shards()) for digest in info.sha256]
    assert len(rows) == len(set(rows)) == 400


def test_workers_notice_a_model_that_was_replaced(tmp_path: Path, cluster: tuple[str, list[int]]) -> None:
    import keras

    def model(bias: float) -> None:
        layers = [
            keras.layers.Input((32, 32, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Rescaling(1.0, bias),
        ]
        keras.Sequential(layers).save(tmp_path / "mine.keras")

    text = CONFIG[: CONFIG.index("[base]")] + '[base]\nname = "file:mine.keras"\ninput_size = 32\n'
    project = Project(tmp_path).create(text + "[cache]\nshard_images = 16\n" + CONFIG[CONFIG.index("[heads.logreg]") :])
    write_photos(project.photos, {"cat": 40, "dog": 40}, first=30_000)
    means = []
    for bias in (0.0, 5.0):
        model(bias)
        outcome = project.headstart("features", "--on", cluster[0])
        assert outcome.code == 0 and outcome.extracted == 80, outcome.out
        found = re.findall(r"→ (\S+)", outcome.out)[-1]
        store = FeatureStore(found)
        means.append(store.read(sorted(store.digests())).mean())
    assert means[1] - means[0] == pytest.approx(5.0, abs=0.1)


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    write_photos(project.photos, {"cat": 10, "dog": 10})
    outcome = project.headstart("features", "--on", "tcp://127.0.0.1:9")
    assert outcome.code == 1 and "Traceback" not in outcome.out
    assert "--on tcp://127.0.0.1:9: expected a Dask scheduler, found none" in outcome.out
