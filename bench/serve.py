"""How many requests a second does `headstart serve` answer, beside the images a second of the bare model?

    python -m bench.serve [--clients 32] [--rounds 5] [--seconds 5] [--base MobileNetV2] [--weights packaged] [--input-size 224]

Made-up JPEG files of 640×480 pixels, and a dense head on the base. Measured in turns, medians of rounds: the base and the head in full
batches of images that are decoded already; the same with the decoding of the files, by threads ahead of the base, as stage one does it;
and the server, in a process of its own, asked by so many clients at once, each of which waits for its answer. The clients are threads of
this process, on the same processor. Then one client alone, beside batches of one image. What the page asks for, details with pictures, is
not measured: clients ask for the answer alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from cache.manifest import ImageRecord
from pipeline.common.build import base_as_stored
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.data.images import decode
from stages.extract.decoding import Rejected, decoded_batches
from stages.heads.train import load_head
from stages.predict.predict import digests_of, taken_by
from stages.predict.rows import log_proba_of
from stages.progress import SILENT
from stages.serve.ladder import MOST

ROOT = Path(__file__).parents[1]
CONFIG = """
[data]
root = "photos"
[base]
name = "{base}"
weights = "{weights}"
input_size = {size}
[heads.dense]
kind = "dense"
pool = "avg"
units = [64]
epochs = 2
"""
HEAD, FILES = "dense", 96


def write_project(folder: Path, base: str, weights: str, size: int) -> list[Path]:
    """A project whose head is trained, and the image files that clients send."""
    (folder / "headstart.toml").write_text(CONFIG.format(base=base, weights=weights, size=size))
    rng = np.random.default_rng(0)
    files = []
    for i in range(FILES):
        path = folder / "photos" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        files.append(path)
    for step in ("features", "heads"):
        subprocess.run(
            [sys.executable, "-m", "pipeline", step], cwd=folder, env=environment(), check=True, capture_output=True
        )
    return files


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


class Bare:
    """The base and the head as `serve` has them, without a server."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        graph = load_graph(load_config(folder / "headstart.toml"))
        target = graph.heads[HEAD]
        self._head = load_head(target.folder)
        self._takes = taken_by(self._head, target.entry.base, target.entry.layers)
        self._base = base_as_stored(graph.bases["base"], SILENT, target.entry.layers, MOST)
        digests, _ = digests_of(files)
        self._records = [ImageRecord(str(path), digest, "", "") for path, digest in digests.items()]
        spec = self._base.spec
        self._images = np.stack(
            [decode(path.read_bytes(), spec.input_size, how=spec.resizing) for path in files[: self.most]]
        )

    @property
    def most(self) -> int:
        return int(self._base.batch_size)

    def answer(self, images: np.ndarray) -> int:
        """How many images are answered."""
        found = self._base(images, len(images) if self._base.takes_any_batch else None)
        log_proba_of(self._head, self._takes, {("base", layer): values for layer, values in found.items()})
        return len(images)

    def batch(self) -> int:
        return self.answer(self._images)

    def one(self) -> int:
        return self.answer(self._images[:1])

    def with_decoding(self) -> int:
        batches = decoded_batches(Path("/"), self._records, self._base.spec, self.most, Rejected())
        return sum(self.answer(batch.images) for batch in batches)


class Server:
    """`headstart serve` of a project, until the block ends."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self._log = folder / "serve.log"
        self._data = [path.read_bytes() for path in files]
        with open(self._log, "w") as log:
            command = [sys.executable, "-m", "pipeline", "serve", "--port", "0", "--max-requests", "1000"]
            self._process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def address(self) -> str:
        """Where it is, once it answers."""
        while "Ctrl-C ends" not in self._log.read_text():
            if self._process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.1)
        return urlsplit(self._log.read_text().rpartition(" are at ")[2].partition(" ")[0]).netloc

    def asked(self, clients: int, seconds: float) -> tuple[float, float]:
        """Requests a second, and the median seconds of one. Raises what went wrong with one."""
        address = self.address()
        took: list[float] = []
        end = time.perf_counter() + seconds

        def client(number: int) -> None:
            connection = HTTPConnection(address)
            i = number
            while (start := time.perf_counter()) < end:
                connection.request("POST", "/predict", self._data[i % len(self._data)])
                response = connection.getresponse()
                told = json.loads(response.read())
                if response.status != 200:
                    raise SystemExit(f"the server answered {response.status}: {told}")
                took.append(time.perf_counter() - start)
                i += 1

        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(client, range(clients)))
        return len(took) / (time.perf_counter() - start), statistics.median(took)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Images a second."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += work()
    return done / elapsed if elapsed else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--base", default="MobileNetV2")
    parser.add_argument("--weights", default="packaged")
    parser.add_argument("--input-size", type=int, default=224)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_project(folder, options.base, options.weights, options.input_size)
        with Server(folder, files) as server:
            bare = Bare(folder, files)
            for work in (bare.batch, bare.one, bare.with_decoding):
                work()
            for clients in (1, 8, options.clients):  # whatever is compiled at first
                server.asked(clients, options.seconds)
            rounds = []
            for _ in range(options.rounds):
                batches = rate(bare.batch, options.seconds)
                decoding = rate(bare.with_decoding, options.seconds)
                served, took = server.asked(options.clients, options.seconds)
                ones = rate(bare.one, options.seconds)
                _, alone = server.asked(1, options.seconds)
                rounds.append((batches, decoding, served, took, 1 / ones, alone, served / batches, served / decoding))
    batches, decoding, served, took, one, alone, ratio, of_both = (
        statistics.median(each) for each in zip(*rounds, strict=True)
    )
    size = options.input_size
    print(
        f"{options.base} at {size}×{size}, {os.cpu_count()} cores, batches of {bare.most}, medians of {options.rounds}"
    )
    print(f"  base and head, images decoded already   {batches:8.1f} images/s")
    print(
        f"  the same with the decoding              {decoding:8.1f} images/s   {decoding / batches:5.2f} of the first"
    )
    print(
        f"  serve, {options.clients:3} clients                      {served:8.1f} requests/s {ratio:5.2f} of the first"
    )
    print(f"                                                              {of_both:5.2f} of the second")
    print(f"    a request                             {1000 * took:8.1f} ms")
    print(f"  a batch of one image                    {1000 * one:8.1f} ms")
    print(f"  serve, one client, a request            {1000 * alone:8.1f} ms         {alone / one:5.2f}")


if __name__ == "__main__":
    main()
