"""What trained heads take of image files, and where it comes from: the stores of the cache, and bases that compute the rest."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pipeline.common.build import base_as_stored
from pipeline.targets.graph import Graph
from pipeline.targets.heads import HeadTarget
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.bases.spec import BaseSpec
    from stages.heads.head import Head
    from stages.heads.images_of import BaseOrImages
    from stages.predict.looker import Looker
    from stages.predict.predict import Source, Taken


def takes_of(chosen: HeadTarget, model: "Head") -> "list[Taken]":
    """What a head takes that is loaded as ``model``, as ``taken_by`` says it."""
    from stages.predict.predict import taken_by

    return taken_by(model, chosen.entry.base, (chosen.result or {}).get("layers", chosen.entry.layers))


def sources_of(
    graph: Graph, takes: Sequence["Taken"], progress: Progress, files: int | None = None
) -> "dict[BaseOrImages, Source]":
    """What a head takes of, by the name of the base; ``files`` as in ``source_of``."""
    return {name: source_of(graph, name, takes, progress, files) for name in dict.fromkeys(take.base for take in takes)}


def source_of(
    graph: Graph, name: "BaseOrImages", takes: Sequence["Taken"], progress: Progress, files: int | None = None
) -> "Source":
    """What a head takes of a base of this name, or of images; ``files`` are as many as are to come, where that is known."""
    from stages.predict.pixels import Images
    from stages.predict.predict import Source

    if not isinstance(name, str):
        images = Images(spec_of(graph, name))
        return Source({}, lambda: images)
    layers = dict.fromkeys(layer for each in takes if each.base == name for layer in each.layers)
    target = graph.bases[name]
    make_base = partial(base_as_stored, target, progress, list(layers), files)
    return Source({layer: target.stores[layer] for layer in layers}, make_base)


def spec_of(graph: Graph, name: "BaseOrImages") -> "BaseSpec":
    """How images come to the base of this name, or to a head that takes images as they are."""
    if isinstance(name, str):
        return graph.bases[name].spec
    return name.spec({base: each.spec for base, each in graph.bases.items()})


def looker_of(graph: Graph, chosen: HeadTarget, progress: Progress) -> "Looker":
    """A trained head, to be asked where it looks."""
    from stages.heads.train import load_head
    from stages.predict.looker import Looker

    head = load_head(chosen.folder)
    takes = takes_of(chosen, head)
    sources = sources_of(graph, takes, progress)
    specs = {name: spec_of(graph, name) for name in sources}
    return Looker(head, takes, sources, specs, float((chosen.result or {}).get("temperature", 1.0)))
