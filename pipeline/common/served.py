"""The trained heads of a project as they are on the disk: loaded when they are asked first, and again when they were trained again."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import HeadError, HeadstartError
from cache.memo import Stat, stat_of
from pipeline.common.sources import source_of, spec_of, takes_of
from pipeline.common.trained import chosen_among, threshold_of, thresholds_of, trained_head
from pipeline.config.load import load_config
from pipeline.targets.graph import Graph, extracted_layer, load_graph
from pipeline.targets.heads import HeadTarget
from stages.heads.tuned_spec import FinetuneSpec
from stages.progress import Progress
from stages.serve.limits import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.bases.frozen import FrozenBase
    from stages.heads.images_of import BaseOrImages
    from stages.predict.pixels import Images
    from stages.predict.predict import Taken
    from stages.search.index import Hit, Index
    from stages.serve.ladder import Ladder
    from stages.serve.served import Served

# How often a head is loaded again that is written meanwhile.
TIMES = 5
# Of how many accuracies a head keeps the threshold.
THRESHOLDS = 100

Stamp = tuple[Stat | None, ...]


class Loaded(NamedTuple):
    """A head, and what it was ``made_of``: all of the graph that its answers depend on."""

    made_of: tuple[Any, ...]
    served: "Served"


class ServedProject:
    """The heads of the configuration in the file ``path``, of which ``head`` is asked where none is named (left out, the best).

    All but ``ready`` is for one thread.
    """

    def __init__(self, path: Path, progress: Progress, head: str | None = None) -> None:
        self._path, self._progress, self._head = path.absolute(), progress, head
        self._graph: Graph | None = None
        self._seen: Stamp | None = None
        self._note = ""
        self._default = head
        self._loaded: dict[str, Loaded] = {}
        # Those of them that are as what was seen says.
        self._current: dict[str, Served] = {}
        self._told: dict[str, Any] | None = None
        self._ladders: dict[BaseOrImages, tuple[str | None, Ladder]] = {}
        self._indices: dict[tuple[str, str], tuple[str, Index]] = {}
        self._to_read: list[tuple[Graph, str, str]] = []

    def ready(self, name: str | None) -> "Served | None":
        """The head, where it is loaded and nothing has changed on the disk; else None. Quick, and for any thread."""
        if self._stamp() != self._seen:
            return None
        return self._current.get(name or self._default or "")

    def load(self, name: str | None) -> "Served":
        """The head as it is on the disk. Raises HeadError for one that there is not, or that is not of the configuration as it is, and
        other HeadstartErrors where what it needs cannot be had.
        """
        from stages.heads.train import load_head

        for _ in range(TIMES):
            graph = self._refreshed()
            chosen = trained_head(graph, name or self._head)
            known = self._loaded.get(chosen.entry.name)
            manifest = graph.manifest.digest, graph.images_here
            made_of = chosen.result, chosen.reasons, chosen_among(graph, chosen), *manifest
            if not known or known.made_of != made_of:
                try:
                    known = Loaded(made_of, self._served(graph, chosen, load_head(chosen.folder)))
                except HeadError:
                    if self._stamp() == self._seen:
                        raise
                    continue
                self._loaded[chosen.entry.name] = known
            if self._stamp() == self._seen:
                self._current[chosen.entry.name] = known.served
                return known.served
        raise RefusedError(
            503, f"head {name or self._default!r} is being written again and again; ask when that is done"
        )

    def told(self) -> dict[str, Any]:
        """Which heads there are: of each its name, its validation score by the ``metric`` that ranks heads, what is to be known of it, and
        the probability from which on it answers for some accuracies; and the ``problem`` of those that cannot answer.
        """
        graph = self._refreshed()
        self._told = self._told or {
            "default": self._default,
            "metric": graph.config.report.metric,
            "classes": list(graph.manifest.classes),
            "heads": [self._told_of(graph, name) for name in graph.heads],
            "warnings": [self._note] if self._note else [],
        }
        return self._told

    def warm_up(self) -> bool:
        """Compile one function, or read the training images of one head, ahead of those who ask; False where all is done."""
        if any(ladder.warm_up() for _, ladder in self._ladders.values()):
            return True
        if not self._to_read:
            return False
        with suppress(HeadstartError):  # whoever asks is told
            self._index(*self._to_read.pop())
        return True

    def _refreshed(self) -> Graph:
        """What is on the disk. Where the configuration cannot be read by now, as it was read last, with a note."""
        seen = self._stamp()
        if self._graph is None or seen != self._seen:
            try:
                self._graph, self._note = load_graph(load_config(self._path), progress=self._progress), ""
            except HeadstartError as error:
                if self._graph is None:
                    raise
                self._note = f"{error}; what was read before is served"
            self._default = self._head or _best(self._graph)
            # Before what was seen is set: ``ready``, which another thread may be in, reads that first.
            self._current, self._told = {}, None
            # Others may be named by now; what was written while they were read, as the manifest by the scan itself, is seen the next time.
            self._seen = seen if len(self._stamp()) == len(seen) else self._stamp()
        return self._graph

    def _stamp(self) -> Stamp:
        """What is another when the configuration, the manifest or a head was written."""
        paths = [self._path]
        if graph := self._graph:
            paths.append(graph.config.cache.dir / "manifest.json")
            paths += [each.folder / "result.json" for some in (graph.heads, graph.sweeps) for each in some.values()]
        return tuple(map(_stamp_of, paths))

    def _served(self, graph: Graph, chosen: HeadTarget, head: Any) -> "Served":
        from stages.serve.served import Served

        result, entry = chosen.result or {}, chosen.entry
        takes = takes_of(chosen, head)
        base, layer = _compared(graph, chosen, takes)
        layers: dict[BaseOrImages, list[str]] = {}
        for name, some in [*((take.base, take.layers) for take in takes), (base, [layer])]:
            layers.setdefault(name, []).extend(some)
        ladders = {name: self._ladder(graph, name, some) for name, some in layers.items()}
        self._to_read.append((graph, base, layer))
        warnings = [f"head {entry.name} is not up to date: {'; '.join(chosen.reasons)}"] if chosen.stale else []

        def like(features: "NDArray[np.float32]", digest: str) -> "list[Hit]":
            from stages.serve.served import NEAREST

            return self._index(graph, base, layer).like(features, NEAREST, digest)

        return Served(
            name=entry.name,
            head=head,
            takes=takes,
            ladders=ladders,
            temperature=float(result.get("temperature", 1.0)),
            warnings=warnings,
            threshold=lru_cache(THRESHOLDS)(lambda accuracy: threshold_of(graph, chosen, accuracy)),
            compared=(base, layer),
            like=like,
            known=graph.manifest.by_digest,
            root=graph.config.data.root if graph.images_here else None,
        )

    def _ladder(self, graph: Graph, name: "BaseOrImages", layers: Collection[str]) -> "Ladder":
        """What computes some layers of a base, which all heads share."""
        from stages.predict.predict import Taken
        from stages.serve.ladder import Ladder

        def make(wanted: Collection[str], most: int) -> "FrozenBase | Images":
            return source_of(graph, name, [Taken(name, tuple(wanted), "none")], self._progress, most).make_base()

        key = graph.bases[name].key() if isinstance(name, str) else None
        if (
            name not in self._ladders
            or self._ladders[name][0] != key
            or self._ladders[name][1].spec != spec_of(graph, name)
        ):
            self._ladders[name] = (key, Ladder(spec_of(graph, name), make))
        ladder = self._ladders[name][1]
        ladder.needed(layers)
        return ladder

    def _index(self, graph: Graph, base: str, layer: str) -> "Index":
        """The training images, as they are searched; read when that is asked first."""
        from stages.search.index import Index

        _, _, store = extracted_layer(graph, base, layer)
        made_of = f"{store.folder} {graph.manifest.digest}"
        known = self._indices.get((base, layer))
        if not known or known[0] != made_of:
            known = self._indices[base, layer] = (made_of, Index.read(graph.manifest.train, store))
        return known[1]

    def _told_of(self, graph: Graph, name: str) -> dict[str, Any]:
        target = graph.heads[name]
        out: dict[str, Any] = {"name": name, "kind": target.entry.spec.kind, "score": None, "thresholds": {}}
        try:
            trained_head(graph, name)
        except HeadstartError as error:
            return out | {"warnings": [], "problem": str(error)}
        out["score"] = (target.result or {})["metrics"]["validation"].get(graph.config.report.metric)
        out["thresholds"] = thresholds_of(graph, target)
        return out | {"warnings": list(target.reasons), "problem": None}


def _best(graph: Graph) -> str | None:
    with suppress(HeadError):
        return trained_head(graph, None).entry.name
    return None


def _stamp_of(path: Path) -> Stat | None:
    with suppress(OSError):
        return stat_of(os.stat(path))
    return None


def _compared(graph: Graph, chosen: HeadTarget, takes: "Sequence[Taken]") -> tuple[str, str]:
    """The base and the layer by which images are compared: the last that the head takes of the first base. A head that computes the base's
    last layers itself, or all of it, has those of the frozen base.
    """
    taken = [(take.base, take.layers[-1]) for take in takes if isinstance(take.base, str)]
    own = chosen.entry.base if chosen.entry.base in graph.bases else next(iter(graph.bases))
    base = taken[0][0] if taken else own
    if taken and not isinstance(chosen.entry.spec, FinetuneSpec):
        return taken[0]
    return base, graph.bases[base].spec.cuts[-1]
