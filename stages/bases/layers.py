"""The layers of any base, whatever brings it."""

from stages.bases.cuts import Layer
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights


def layers_of(spec: BaseSpec, weights: Weights) -> list[Layer]:
    """The layers at which a base can be cut, from input to output. Raises BaseError where it cannot be built."""
    if spec.onnx:
        from stages.bases import onnxfile

        return onnxfile.layers_of(spec)
    if spec.hub:
        from stages.bases import hub

        return hub.layers_of(spec, weights.folder)
    from stages.bases import model

    return model.layers_of(spec, weights)
