"""A trained head that answers, and what it says of a batch of images."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError, HeadstartError
from cache.manifest import ImageRecord
from stages.bases.spec import BaseSpec
from stages.explain.evidence import OTHERWISE
from stages.explain.maps import explain
from stages.heads.calibration import cooled
from stages.heads.head import Head
from stages.heads.images_of import BaseOrImages
from stages.predict.predict import Taken
from stages.predict.rows import log_proba_of, seen_in
from stages.search.index import Hit
from stages.serve.ladder import Ladder

# Of the images that are shown beside an answer.
NEAREST = 6


@dataclass(frozen=True)
class Served:
    """A trained head, what it ``takes`` from which ``ladders``, and what its answers are given with.

    ``threshold`` gives the probability from which on it answers for an accuracy, and raises HeadError where validation cannot show that.
    ``like`` gives the nearest training images, by the features of one ``compared`` (base, layer), and raises CacheError. ``known`` are the
    images of the data by SHA-256, whose files lie under ``root``; None where they are not here.
    """

    name: str
    head: Head
    takes: Sequence[Taken]
    ladders: Mapping[BaseOrImages, Ladder]
    temperature: float
    warnings: Sequence[str]
    threshold: Callable[[float], float]
    compared: tuple[str, str]
    like: Callable[[NDArray[np.float32], str], list[Hit]]
    known: Mapping[str, ImageRecord]
    root: Path | None

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.head.classes_]

    def specs(self, detailed: bool) -> dict[BaseOrImages, BaseSpec]:
        """How an image comes to each base that is to compute something of it."""
        needed: set[BaseOrImages] = {take.base for take in self.takes} | ({self.compared[0]} if detailed else set())
        return {name: ladder.spec for name, ladder in self.ladders.items() if name in needed}


@dataclass(frozen=True)
class Found:
    """What a head says of an image: the ``probabilities`` (classes,). In detail also the ``map`` (height, width), from 0 to 1, of what
    speaks for class ``k``, by which ``method``, or ``why_not``; and the ``nearest`` training images, or ``why_none``.
    """

    probabilities: NDArray[np.float64]
    k: int
    map: NDArray[np.float32] | None = None
    method: str = ""
    why_not: str = ""
    nearest: Sequence[Hit] = ()
    why_none: str = ""


@dataclass(frozen=True)
class Asked:
    """An image that a head is asked about: ``images`` (height, width, 3) uint8 as each base takes it. With the ``size`` (height, width)
    of a picture, the answer is in detail; ``k`` is the class that the map is of, left out for the most probable.
    """

    served: Served
    images: Mapping[BaseOrImages, NDArray[np.uint8]]
    digest: str = ""
    size: tuple[int, int] | None = None
    k: int | None = None
    answer: "Future[Found]" = field(default_factory=Future)


def answer(asked: Sequence[Asked]) -> None:
    """Answer all of them: each base computes once for all heads, and each head once for all its images.

    What goes wrong with a base or a head is the answer of those that need it. Those that gave up waiting are left out.
    """
    asked = [each for each in asked if each.answer.set_running_or_notify_cancel()]
    failed: dict[int, Exception] = {}
    rows = _rows(asked, failed)
    by_head: dict[int, list[int]] = defaultdict(list)
    for i, each in enumerate(asked):
        by_head[id(each.served)].append(i)
    plain: dict[int, NDArray[np.float64]] = {}
    for places in by_head.values():
        served, whole = asked[places[0]].served, [i for i in places if i not in failed]
        try:
            plain |= zip(whole, _probabilities(served, [rows[i] for i in whole]), strict=True)
        except Exception as error:
            failed |= dict.fromkeys(whole, error)
    for i, why in failed.items():
        asked[i].answer.set_exception(why)
    # Details cost more than answers, so that they come after all of these.
    for i in sorted(plain, key=lambda i: asked[i].size is not None):
        try:
            asked[i].answer.set_result(_found(asked[i], plain[i], rows[i]))
        except Exception as error:
            asked[i].answer.set_exception(error)


Row = dict[tuple[BaseOrImages, str], NDArray[np.float32]]


def _rows(asked: Sequence[Asked], failed: dict[int, Exception]) -> list[Row]:
    """The features (…,) of each image, by base and layer."""
    rows: list[Row] = [{} for _ in asked]
    by_ladder: dict[int, list[tuple[int, BaseOrImages]]] = defaultdict(list)
    for i, each in enumerate(asked):
        for base in each.images:
            by_ladder[id(each.served.ladders[base])].append((i, base))
    for places in by_ladder.values():
        first, base = places[0]
        ladder = asked[first].served.ladders[base]
        try:
            found = ladder(np.stack([asked[i].images[base] for i, _ in places]))
        except Exception as error:  # of a runtime, or no memory: the next request may do
            failed |= dict.fromkeys((i for i, _ in places), error)
            continue
        for layer, values in found.items():
            for (i, base), value in zip(places, values, strict=True):
                rows[i][base, layer] = value
    return rows


def _probabilities(served: Served, rows: Sequence[Row]) -> NDArray[np.float64]:
    if not rows:
        return np.empty((0, len(served.classes)))
    needed = [(take.base, layer) for take in served.takes for layer in take.layers]
    stacked = {key: np.stack([row[key] for row in rows]) for key in needed}
    p: NDArray[np.float64] = np.exp(cooled(log_proba_of(served.head, served.takes, stacked), served.temperature))
    return p


def _found(asked: Asked, p: NDArray[np.float64], row: Row) -> Found:
    k = int(p.argmax()) if asked.k is None else asked.k
    if asked.size is None:
        return Found(p, k)
    served, heat, method, why_not, why_none = asked.served, None, "", "", ""
    specs = {name: ladder.spec for name, ladder in served.ladders.items()}
    try:
        heat, method = explain(served.head, seen_in(served.takes, row, specs), k, asked.size)
    except HeadError as error:
        why_not = str(error).replace(OTHERWISE, "ask another head")
    nearest: Sequence[Hit] = ()
    try:
        nearest = served.like(row[served.compared], asked.digest)
    except HeadstartError as error:
        why_none = str(error)
    return Found(p, k, heat, method, why_not, nearest, why_none)
