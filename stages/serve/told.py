"""An answer as JSON: probabilities, and in detail the pictures that go with them."""

import io
from base64 import b64encode
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.manifest import ImageRecord
from stages.bases.spec import BaseSpec
from stages.data.images import decode
from stages.explain.drawing import overlay, shown
from stages.heads.images_of import BaseOrImages
from stages.report.pictures import JPEG, data_uri
from stages.serve.served import Found, Served

# Pixels of the picture and its map, and of the training images beside it, at most.
EDGE, THUMBNAIL = 480, 192


class Upload(NamedTuple):
    """An upload: its SHA-256, its ``images`` (height, width, 3) uint8 as each base takes it, and in detail the ``picture`` of it."""

    digest: str
    images: dict[BaseOrImages, NDArray[np.uint8]]
    picture: NDArray[np.uint8] | None


def prepared(data: bytes, specs: dict[BaseOrImages, BaseSpec], most: int, detailed: bool) -> Upload:
    """What heads need of an image file of at most ``most`` pixels. Raises BadImageError with a reason for a person."""
    images = {
        name: decode(data, spec.input_size, scaled=spec.decode == "scaled", how=spec.resizing, most=most)
        for name, spec in specs.items()
    }
    return Upload(sha256(data).hexdigest(), images, shown(data, next(iter(specs.values())), EDGE) if detailed else None)


def told(served: Served, found: Found, min_accuracy: float | None, threshold: float) -> dict[str, Any]:
    """What a head says of an image: the label, null where it is not sure enough, and the classes from the most probable on."""
    p = {name: float(value) for name, value in zip(served.classes, found.probabilities, strict=True)}
    ranked = dict(sorted(p.items(), key=lambda pair: -pair[1]))
    first = next(iter(ranked))
    sure = ranked[first] >= threshold
    return {
        "head": served.name,
        "label": first if sure else None,
        "most_probable": first,
        "sure": sure,
        "probabilities": ranked,
        "min_accuracy": min_accuracy,
        "threshold": threshold,
        "warnings": list(served.warnings),
    }


def told_in_detail(served: Served, found: Found, upload: Upload) -> dict[str, Any]:
    """What is told beside that: where the head looked, and the nearest training images, with pictures as data URIs."""
    same = served.known.get(upload.digest)
    assert upload.picture is not None
    return {
        "picture": _uri(upload.picture),
        "map": {
            "class": served.classes[found.k],
            "image": None if found.map is None else _uri(overlay(upload.picture, found.map)),
            "method": found.method,
            "why_not": found.why_not
            or ("" if found.map is None or found.map.any() else "nothing speaks for this class"),
        },
        "same_file": _told_of(same) if same else None,
        "nearest": [
            {**_told_of(hit.record), "similarity": round(hit.similarity, 4), **_thumbnail(served, hit.record)}
            for hit in found.nearest
        ],
        "why_none": found.why_none,
    }


def _told_of(record: ImageRecord) -> dict[str, str]:
    return {"path": record.path, "label": record.label, "split": record.split}


def _thumbnail(served: Served, record: ImageRecord) -> dict[str, str | None]:
    source, reason = data_uri(record.path, served.root, THUMBNAIL, quick=True)
    return {"image": source, "why_not": reason or ("" if source else "the images are not on this machine")}


def _uri(picture: NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=88)
    return JPEG + b64encode(out.getvalue()).decode("ascii")
