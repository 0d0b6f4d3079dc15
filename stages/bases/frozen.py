"""``FrozenBase``: a base cut at its layers, run over batches of images in inference mode by one of the engines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.bases import backend, hub
from stages.bases.arithmetic import gflops_of_keras, gflops_of_onnx
from stages.bases.engines import KerasEngine, OpenVINOEngine
from stages.bases.model import build, cut, with_preprocessing
from stages.bases.onnxfile import OnnxEngine
from stages.bases.quantise import QuantisedBase
from stages.bases.spec import BaseSpec
from stages.bases.tokens import select
from stages.bases.weights import Weights


class FrozenBase:
    """RGB images (n, height, width, 3) uint8 → the features (n, …) float32 of each of its ``layers``.

    ``precision`` and ``device`` say what it really computes with, ``versions`` with which libraries. One function is
    compiled, for batches of ``batch_size``; the last batch is padded. ``layers`` are some of the spec's cuts (left out:
    all); what lies behind the last of them is not computed. ``precision`` is what ``auto`` comes to (left out: the
    fastest of the hardware). Raises BaseError where the base cannot be built, cut or given its weights.
    """

    def __init__(
        self, spec: BaseSpec, weights: Weights, layers: Sequence[str] = (), precision: str | None = None
    ) -> None:
        self.spec = spec
        self.layers = tuple(layers or spec.cuts)
        self.precision = precision or backend.precision_for(spec.precision, spec.computed_by)
        self.batch_size = spec.batch_size or backend.batch_size(spec.computed_by)
        self._engine = self._make_engine(weights)
        self.device = self._engine.device if isinstance(self._engine, OnnxEngine) else backend.device(spec.engine)
        self.versions = backend.versions(of_keras=not spec.onnx) | self._engine.versions
        empty = [np.zeros((1, *shape), np.float32) for shape in self._engine.shapes]
        self.feature_shapes = {layer: values.shape[1:] for layer, values in self._kept(empty).items()}

    def _make_engine(self, weights: Weights) -> KerasEngine | OpenVINOEngine | OnnxEngine:
        if self.spec.onnx:
            return OnnxEngine(self.spec, self.layers, self.precision, self.batch_size)
        shape = (self.batch_size, *self.spec.input_size, 3)
        if self.precision == "int8":
            return OpenVINOEngine(QuantisedBase(self.spec, weights).load(self.layers), self.precision, shape)
        # OpenVINO lowers the precision itself, from a model in float32.
        precision = self.precision if self.spec.engine == "keras" else "float32"
        if self.spec.hub:
            model = hub.cut(self.spec, weights.folder, precision, self.layers)
        else:
            model = cut(build(self.spec, weights, precision), self.layers, self.spec.name)
        model = with_preprocessing(model, self.spec)
        if self.spec.engine == "keras":
            return KerasEngine(model)
        return OpenVINOEngine.of_keras(model, self.precision, shape)

    def _kept(self, found: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return {layer: select(values, self.spec, layer) for layer, values in zip(self.layers, found, strict=True)}

    @property
    def gflops(self) -> float | None:
        """Multiplications and additions of one image, in 10⁹; None where they cannot be counted."""
        if self.spec.onnx:
            return gflops_of_onnx(self.spec)
        return (
            gflops_of_keras(self._engine.model, self.spec.input_size) if isinstance(self._engine, KerasEngine) else None
        )

    @property
    def takes_any_batch(self) -> bool:
        """Whether one function can be compiled for batches of each size."""
        return isinstance(self._engine, KerasEngine)

    def __call__(self, images: NDArray[np.uint8], padded_to: int | None = None) -> dict[str, NDArray[np.float32]]:
        """Features by layer, row i of image i; ``images`` are at most ``batch_size``, of the spec's input size.

        A base that takes any batch can be given one that is ``padded_to`` fewer images, for which another function is compiled.
        """
        rows, full = len(images), padded_to or self.batch_size
        if rows < full:
            padding = np.zeros((full - rows, *images.shape[1:]), np.uint8)
            images = np.concatenate([images, padding])
        return {layer: values[:rows] for layer, values in self._kept(self._engine(images)).items()}
