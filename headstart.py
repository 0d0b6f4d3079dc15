"""headstart from Python: cached features as arrays, and trained heads, for a notebook or a script.

    from headstart import load_features, load_head
    X, y, paths = load_features("headstart.toml", "train")
    head = load_head("headstart.toml", "dense256")

Features are read without TensorFlow; it is loaded with a head that needs it. Errors are ``HeadstartError``, one line each.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import CacheError, DataError, FeatureStore, HeadstartError, ImageRecord, Manifest
from cache.errors import ConfigError, HeadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.config.load import Config
    from stages.heads.head import Head

__all__ = [
    "CacheError",
    "ConfigError",
    "DataError",
    "FeatureStore",
    "Features",
    "HeadError",
    "HeadstartError",
    "ImageRecord",
    "Manifest",
    "load_features",
    "load_head",
    "load_image_model",
]


class Features(NamedTuple):
    """The images of a split, in order of their paths: features ``X`` (n, …) float32 as the base gives them, labels ``y`` (n,)
    int64, which index the manifest's ``classes``, and ``paths`` (n,), relative to the data folder.
    """

    X: "NDArray[np.float32]"
    y: "NDArray[np.int64]"
    paths: list[str]


def load_features(
    source: "Config | Path | str", split: str, base: str | None = None, layer: str | None = None
) -> Features:
    """The features of a split, "train", "validation" or "test".

    ``source`` is a configuration (its path, or as loaded), of whose bases ``base`` is read (left out: the first), at ``layer``
    (left out: the last that it names); or the folder of one feature store, in its cache. Raises CacheError for a folder that is none,
    where an image of the split has no features yet or where a shard is damaged, ConfigError for a base or a layer that the
    configuration does not name, and ValueError for a split of another name.
    """
    manifest, store = _opened(source, base, layer)
    X, y = store.arrays(manifest, split)
    return Features(X, y, [record.path for record in manifest.records if record.split == split])


def load_head(source: "Config | Path | str", name: str | None = None) -> "Head":
    """A trained head, with ``predict`` (names of classes), ``predict_proba`` (n, classes) and ``classes_``.

    ``source`` is a configuration (its path, or as loaded), of whose heads ``name`` is loaded (left out: the best on validation),
    or the folder of one head. It takes features (n, …) as ``load_features`` gives them; one that was trained on several layers
    takes them pooled and side by side (n, d). One that was fine-tuned takes the activations of the layer that its result names; one
    that was trained on images takes these (n, height, width, 3), RGB from 0 to 255. Nothing in the file is run. Raises HeadError
    where there is no such head, or where it is not trained.
    """
    from stages.heads.train import load_head as load

    if not hasattr(source, "heads") and Path(source).is_dir():
        return load(Path(source))
    from pipeline.common.trained import trained_head
    from pipeline.targets.graph import load_graph

    return load(trained_head(load_graph(_config(source)), name).folder)


def load_image_model(source: "Config | Path | str", name: str | None = None) -> Any:
    """A trained head and its base as one Keras model, from RGB images (n, height, width, 3), float32 from 0 to 255 and of the base's
    input size, to probabilities (n, classes), or (n, 1) for the second of two classes. They are those before the temperature.

    ``source`` is a configuration (its path, or as loaded), ``name`` that of one of its heads (left out: the best on validation), which is
    of kind dense, keras or finetune and on one layer, or of kind end_to_end or cnn. Raises HeadError where it is not, or is not trained.
    """
    from pipeline.common.trained import trained_head
    from pipeline.targets.graph import load_graph
    from stages.export.model import Built, image_model

    graph = load_graph(_config(source))
    bases = {each: Built(base.spec, base.weights) for each, base in graph.bases.items()}
    return image_model(trained_head(graph, name).folder, bases)


def _opened(source: "Config | Path | str", base: str | None, layer: str | None) -> tuple[Manifest, FeatureStore]:
    if not hasattr(source, "bases") and Path(source).is_dir():
        store = FeatureStore(source)
        _ = store.spec  # raises CacheError where there is none
        path = Path(source).resolve().parent.parent / "manifest.json"
        if not path.exists():
            raise CacheError(
                f"{path}: expected the manifest of the feature store {source}, found nothing; copy it there from its cache, or give a "
                "configuration"
            )
        return Manifest.load(path), store
    from pipeline.targets.graph import extracted_layer, load_graph

    graph = load_graph(_config(source))
    return graph.manifest, extracted_layer(graph, base, layer)[2]


def _config(source: "Config | Path | str") -> "Config":
    from pipeline.config.load import Config, load_config

    return source if isinstance(source, Config) else load_config(source)
