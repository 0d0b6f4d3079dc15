"""Weights of a base: where they come from, their digest, and how they get into a model.

Every source has a digest that is known without Keras once the weights were seen, as the base key holds it:

- ``imagenet``: fetched once through Keras; SHA-256 over the arrays, which are kept under ``artifacts/weights``;
- ``packaged``: in a Python package, see ``stages.bases.packaged``; SHA-256 of the file;
- ``random``: drawn with NumPy from ``seed``, the same under every Keras backend;
- a file: ``.weights.h5``, ``.keras`` or ``.h5``; SHA-256 of the file.

A record of each (``artifacts/weights/*.json``) travels with the cache, so that it can be used where the weights are not.
"""

import hashlib
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import BaseError
from cache.files import atomic_path, digest_text, read_memo, sha256_file, write_sealed
from stages.bases.brought import known
from stages.bases.packaged import load_packaged
from stages.bases.packaged import source as packaged_source
from stages.bases.spec import WEIGHTS_SUFFIXES as SUFFIXES
from stages.bases.spec import BaseSpec

RANDOM = 'weights = "random": the base has learned nothing from images; good for comparison with pretrained weights, and for tests'


def note(spec: BaseSpec) -> str | None:
    """What the user should know of the weights; None where there is nothing to say."""
    if spec.packaged:
        return spec.packaged.note
    return RANDOM if spec.weights == "random" else None


@dataclass(frozen=True)
class Weights:
    """The weights that a spec asks for. ``folder`` keeps what was fetched and the records."""

    spec: BaseSpec
    folder: Path

    @property
    def _record(self) -> Path:
        if self.spec.weights in ("imagenet", "packaged"):
            return self.folder / f"{self._kept_as}.json"
        # Where it lies beside the cache: the same on a machine that the cache was copied to, another for another file.
        place = os.path.relpath(self.spec.weights, self.folder.parent)
        return self.folder / f"{self.spec.slug}-file-{digest_text(place)[:12]}.json"

    @property
    def kept(self) -> Path:
        """Where fetched ImageNet weights are kept."""
        return self.folder / f"{self._kept_as}.weights.h5"

    @property
    def _kept_as(self) -> str:
        top = "-top" if self.spec.include_top else ""
        return f"{self.spec.slug}-{self.spec.weights}{top}"

    @property
    def fetched(self) -> bool:
        """Whether ImageNet weights were fetched and are kept, with their digest."""
        return self.kept.exists() and bool(read_memo(self._record))

    def digest(self) -> str | None:
        """SHA-256 that stands for the weights in the base key; None for ImageNet weights, or a preset, not fetched yet.

        Imports no Keras. Raises BaseError where the weights are neither here nor recorded.
        """
        if self.spec.onnx or self.spec.hub:
            return known(self.spec, self.folder).get("sha256")
        if self.spec.weights == "random":
            return digest_text(f"random weights 1: {self.spec.name}, seed {self.spec.seed}")
        recorded = read_memo(self._record)
        if self.spec.weights == "imagenet":
            return recorded.get("sha256")
        try:
            source = self._source()
        except BaseError:
            if recorded:
                return str(recorded["sha256"])
            raise
        status = source.stat()
        stat = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if stat.items() <= recorded.items():
            return str(recorded["sha256"])
        name = self.spec.weights if self.spec.weights == "packaged" else source.name
        return self._write_record({"weights": name, **stat, "sha256": sha256_file(source)})

    def load(self, model: Any) -> None:
        """Put the weights into a whole base without its top. Freshly fetched ImageNet weights are in it already."""
        kind = self.spec.weights
        if kind == "random":
            _draw(model, self.spec)
        elif kind == "packaged":
            load_packaged(model, self.spec.name)
        elif kind == "imagenet":
            self._keep_imagenet(model)
        else:
            _load_file(model, self._source(), self.spec.name)

    def _source(self) -> Path:
        """The file that the weights are in. Raises BaseError where it is not here."""
        if self.spec.weights == "packaged":
            return packaged_source(self.spec.name)
        source = Path(self.spec.weights)
        if source.exists():
            return source
        if self.spec.own_file:
            raise BaseError(
                f"base {self.spec.name!r}: expected a Keras model there, found no such file at {source}; mend name"
            )
        raise BaseError(
            f"weights {self.spec.weights!r}: expected imagenet, packaged, random or a weights file "
            f"({', '.join(SUFFIXES)}), found no such file at {source}; mend weights in the configuration"
        )

    def _write_record(self, record: dict[str, Any]) -> str:
        with suppress(OSError):  # a memo: a folder that cannot be written costs time, not correctness
            write_sealed(self._record, record)
        return str(record["sha256"])

    def _keep_imagenet(self, model: Any) -> None:
        """Keep what Keras fetched, or read back what was kept and compare its digest."""
        if self.fetched:
            expected = read_memo(self._record)["sha256"]
            model.load_weights(self.kept)
            if (found := array_digest(model)) != expected:
                raise BaseError(
                    f"{self.kept}: expected weights with digest {expected[:12]}, found {found[:12]}; delete it"
                )
            return
        with atomic_path(self.kept) as temporary:
            model.save_weights(temporary)
        self._write_record({"weights": "imagenet", "sha256": array_digest(model)})


def array_digest(model: Any) -> str:
    """SHA-256 over shape and float32 content of every weight in order, whatever file they came from."""
    import numpy as np

    digest = hashlib.sha256()
    for variable in model.weights:
        values = np.ascontiguousarray(variable.numpy(), np.float32)
        digest.update(f"{values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _draw(model: Any, spec: BaseSpec) -> None:
    """He-normal kernels (https://arxiv.org/abs/1502.01852), drawn with NumPy; the rest stays as Keras initialises it."""
    import numpy as np

    rng = np.random.default_rng(spec.seed)
    for layer in model.layers:
        for variable in layer.weights:
            if not variable.name.endswith("kernel"):
                continue
            shape = tuple(variable.shape)
            # A depthwise kernel (height, width, channels, 1) sees one channel, any other all of them.
            depthwise = "depthwise" in variable.name or type(layer).__name__ == "DepthwiseConv2D"
            fan_in = int(np.prod(shape[:2] if depthwise else shape[:-1]))
            variable.assign(rng.normal(0.0, np.sqrt(2.0 / fan_in), shape).astype(np.float32))


def _load_file(model: Any, path: Path, name: str) -> None:
    if not path.name.endswith(SUFFIXES):
        raise BaseError(f"{path}: expected a weights file ({', '.join(SUFFIXES)}), found {path.suffix or 'no suffix'}")
    try:
        # Keras only warns of layers for which the file has nothing, and leaves them as they were initialised.
        with warnings.catch_warnings(action="error", category=UserWarning):
            model.load_weights(path)
    except Exception as error:  # Keras raises ValueError, KeyError, OSError and more for a file that does not fit
        reason = " ".join(str(error).split())[:200]
        raise BaseError(f"{path}: expected weights of {name} without its top, found others ({reason})") from error
