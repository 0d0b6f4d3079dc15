"""A base in int8: quantised once with NNCF on a sample of training images, and kept beside the weights.

The whole base is quantised, whatever layers are asked for, and cut afterwards: so features of one layer are the same
whichever others are extracted with them. The digest of the quantised model is what the base key holds, so that images
that are added later change nothing.

NNCF: https://github.com/openvinotoolkit/nncf (post-training quantisation with fast bias correction, T. Finkelstein et al.,
"Fighting quantization bias with bias", 2019).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import BaseError
from cache.files import atomic_path, digest_json, lock, read_memo, sha256_file, write_sealed
from stages.bases.spec import OUTPUT, BaseSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.bases.weights import Weights


@dataclass(frozen=True)
class QuantisedBase:
    """The int8 model of a base, where it is kept, and its digest. Nothing is imported until it is made or loaded."""

    spec: BaseSpec
    weights: "Weights"

    def _file(self, suffix: str) -> Path:
        made_of = [self.weights.digest(), self.spec.identity("", "", ""), self.spec.calibration_images]
        return self.weights.folder / f"{self.spec.slug}-int8-{digest_json(made_of)[:12]}{suffix}"

    @property
    def _files(self) -> tuple[Path, Path]:
        return self._file(".xml"), self._file(".bin")

    @property
    def _record(self) -> dict[str, Any]:
        """What is recorded of the quantised model; empty where it was not made yet."""
        return read_memo(self._file(".json"))

    def digest(self) -> str | None:
        """SHA-256 of the quantised model; None where it was not made yet."""
        return None if self.weights.digest() is None else self._record.get("sha256")

    def make(self, images: "Iterable[NDArray[np.uint8]]", waiting: Callable[[str], None]) -> int:
        """Quantise on images (1, height, width, 3) uint8, unless it was done; returns how many images it took.

        ``waiting`` is told where another process is at it. Raises BaseError for a layer that the base does not have,
        before anything is quantised.
        """
        with lock(self.weights.folder, waiting):
            if self.digest() is not None and all(path.exists() for path in self._files):
                return 0
            return self._make(images)

    def _make(self, images: "Iterable[NDArray[np.uint8]]") -> int:
        from stages.bases import backend
        from stages.bases.cuts import check_layers
        from stages.bases.engines import convert, load_extra
        from stages.bases.model import build, cut, with_preprocessing

        openvino, nncf = load_extra("openvino"), load_extra("nncf")
        base = build(self.spec, self.weights, "float32")
        names = [layer.name for layer in base.layers[1:]]
        check_layers([*names, OUTPUT], self.spec.cuts, self.spec.name)
        model, tensors = convert(with_preprocessing(cut(base, [*names, OUTPUT], self.spec.name), self.spec))
        # Only the last output stays one while it is quantised; a tensor keeps its name, by which it is found again.
        nodes = [model.output(tensor).get_node().input_value(0).get_node().get_friendly_name() for tensor in tensors]
        last = model.output(tensors[-1]).get_node().get_friendly_name()
        for result in model.get_results():
            if result.get_friendly_name() != last:
                model.remove_result(result)
        sample = list(images)
        with backend.without_chatter():
            quantised = nncf.quantize(model, nncf.Dataset(sample), subset_size=len(sample))
        kept = {node.get_friendly_name() for node in quantised.get_ops()}
        xml, binary = self._files
        with atomic_path(xml) as temporary:
            openvino.save_model(quantised, temporary, compress_to_fp16=False)
            with atomic_path(binary) as other:
                os.replace(temporary.with_suffix(".bin"), other)
        record = {
            "sha256": _digest_of(self._files),
            # Quantising folds some layers into others; at those it cannot be cut.
            "layers": {name: node for name, node in zip([*names, OUTPUT], nodes, strict=True) if node in kept},
            "images": len(sample),
            "versions": {"nncf": version("nncf"), "openvino": version("openvino")},
        }
        write_sealed(self._file(".json"), record)
        return len(sample)

    def load(self, layers: Sequence[str]) -> Any:
        """The OpenVINO model, cut at ``layers``. Raises BaseError where it is not the one that was recorded."""
        from stages.bases.engines import load_extra

        openvino = load_extra("openvino")
        record = self._record
        xml, binary = self._files
        if not (record and xml.exists() and binary.exists()):
            remedy = "run `make features`"
            if record:
                remedy = f"bring it back, or delete {self._file('.json')} to quantise anew and extract everything again"
            raise BaseError(f"{xml}: expected the int8 model of {self.spec.name}, found none; {remedy}")
        if _digest_of(self._files) != record["sha256"]:
            raise BaseError(f"{xml}: expected the int8 model that was recorded, found another; delete it and its .json")
        model = openvino.Core().read_model(xml)
        for layer in layers:
            if layer not in record["layers"]:
                listed = ", ".join(record["layers"])
                raise BaseError(
                    f"layer {layer!r}: the int8 model of {self.spec.name} cannot be cut there, as quantising folds it into its "
                    f"neighbours; it can be at {listed}"
                )
        nodes = {node.get_friendly_name(): node for node in model.get_ops()}
        results = [openvino.opset13.result(nodes[record["layers"][layer]].output(0)) for layer in layers]
        return openvino.Model(results, model.get_parameters(), self.spec.name)


def _digest_of(files: Sequence[Path]) -> str:
    return digest_json([sha256_file(path) for path in files])


def base_digest(spec: BaseSpec, weights: "Weights") -> str | None:
    """What stands for the weights in the base keys: their SHA-256, or that of the quantised model."""
    return QuantisedBase(spec, weights).digest() if spec.precision == "int8" else weights.digest()
