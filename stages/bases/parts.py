"""Where one tensor separates a base in two: what is before it need run only once, what is behind it can be trained.

A base is a graph of layers. Its output at a layer separates it where all other ways from the image to the end pass through that
layer: behind a block of VGG, between two blocks of a ResNet, but not beside a shortcut.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cache.errors import BaseError
from stages.bases import backend
from stages.bases.cuts import check_layers, float16_bytes
from stages.bases.model import output_at
from stages.bases.spec import BaseSpec
from stages.fields import did_you_mean

# The block that a layer is of, by the names that Keras gives: block5_conv1, conv5_block3_out, block_16_expand, block7a_se_squeeze,
# expanded_conv_10_add, convnext_tiny_stage_3_block_2_layer_scale.
BLOCK = re.compile(r"(?:^|_)((?:stage_\d+_)?(?:conv\d+_)?(?:block_?\d+[a-z]?|expanded_conv_\d+))(?=_|$)")


class Cut(NamedTuple):
    """A place where one tensor separates a base: the output of the layer ``before`` it, which is all that the layers ``behind`` take;
    None where it is the image itself.
    """

    before: str | None
    behind: tuple[str, ...]


@dataclass(frozen=True)
class Tail:
    """The part of a base that is trained: from the layers that ``cut`` is before, to the layer ``end``.

    ``shape`` is that of the cut's activations for one image.
    """

    base: str
    cut: Cut
    end: str
    shape: tuple[int, ...]

    @property
    def before(self) -> str:
        """The layer whose activations the part takes. Raises BaseError where it takes the image itself."""
        if self.cut.before is None:
            raise BaseError(
                f'from: with {self.cut.behind[0]!r} the whole of {self.base} would be trained, from the image on; take kind = "end_to_end" '
                "for that, or a later layer"
            )
        return self.cut.before

    @property
    def bytes(self) -> int:
        """Bytes of the activations of one image as float16, uncompressed."""
        return float16_bytes(self.shape)


def check_base(spec: BaseSpec) -> None:
    """Raise BaseError for a base whose layers cannot be trained, or be part of another model, here."""
    if spec.onnx or spec.hub:
        found = "an ONNX file" if spec.onnx else "a preset of KerasHub"
        raise BaseError(
            f"{spec.name}: expected a base of keras.applications or a Keras model, found {found}, whose "
            "layers cannot be trained, drawn or exported here; take a head on another base for that"
        )
    if spec.output is not None:
        raise BaseError(
            f"{spec.name}: expected the output of a layer as it is, found output = {spec.output!r}; leave it out"
        )


def found_tail(model: Any, spec: BaseSpec, start: int | str, end: str) -> Tail:
    """Where a base, built as ``model``, is to be cut, so that it is trained from ``start`` on, a layer or a number of last blocks, to the
    layer ``end``.

    Raises BaseError where no one tensor separates it there, with the nearest places where one does.
    """
    order, cuts = separated(model, end)
    check_layers(order, [end], spec.name)
    first = _first_of_blocks(order, start, spec.name) if isinstance(start, int) else start
    if first not in order:
        raise BaseError(
            f"from: {spec.name} has no layer {first!r} up to {end!r}{did_you_mean(first, order)}; see `headstart layers {spec.name}`"
        )
    cut = next((each for each in cuts if first in each.behind), None)
    if cut is None:
        places = _nearest_places(model, order, cuts, first)
        nearest = "layers at which it can be cut are" if len(places) > 1 else "layer at which it can be cut is"
        raise BaseError(
            f"from: no one tensor separates {spec.name} before {first!r}, as there are other ways around it; the nearest {nearest} "
            f"{' and '.join(map(repr, places)) or 'none'}"
        )
    before = model.input if cut.before is None else output_at(model, cut.before)
    found = Tail(spec.name, cut, end, tuple(before.shape[1:]))
    if not part_between(model, cut.before, end).count_params():
        raise BaseError(
            f"from: nothing can be trained from {first!r} to {end!r}, as these layers have no weights; name an earlier one"
        )
    return found


def part_between(model: Any, before: str | None, end: str) -> Any:
    """The layers of a base behind ``before``, or behind the image, to ``end``, as a Keras model of their own; weights are shared."""
    start = model.input if before is None else output_at(model, before)
    return backend.load_keras().Model(start, output_at(model, end))


def separated(model: Any, end: str) -> tuple[list[str], list[Cut]]:
    """The layers on the ways to ``end``, each after those that it takes, and the places where one tensor separates them, in order."""
    keras = backend.load_keras()
    operations = [each for each in model.operations if each.output is not None]
    makers = {id(tensor): i for i, each in enumerate(operations) for tensor in keras.tree.flatten(each.output)}
    target = output_at(model, end)
    wanted, ahead = set[int](), [makers[id(target)]]
    while ahead:
        if (i := ahead.pop()) not in wanted:
            wanted.add(i)
            ahead += _inputs(operations[i], makers, i)
    order = [operations[i] for i in sorted(wanted)]
    place = {id(each): k for k, each in enumerate(order)}
    takes = [{place[id(operations[i])] for i in _inputs(each, makers, -1)} for each in order]
    taken: list[list[int]] = [[] for _ in order]  # by which others
    for k, others in enumerate(takes):
        for i in others:
            taken[i].append(k)
    cuts, furthest = [], 0
    for k, each in enumerate(order[:-1]):
        # What comes before takes no part behind it, and it has one output.
        if furthest <= k and isinstance(each, keras.layers.Layer) and len(keras.tree.flatten(each.output)) == 1:
            name = None if isinstance(each, keras.layers.InputLayer) else each.name
            # Not what adds a shortcut: other layers behind the place come before it.
            cuts.append(Cut(name, tuple(order[j].name for j in taken[k] if takes[j] == {k})))
        furthest = max(furthest, *taken[k])
    return [each.name for each in order[1:]], cuts


def _inputs(operation: Any, makers: dict[int, int], itself: int) -> list[int]:
    """The operations that one takes the outputs of."""
    tensors = backend.load_keras().tree.flatten(operation.input)
    if _is_input(operation):
        return []
    if not all(id(tensor) in makers for tensor in tensors):
        raise BaseError(
            f"from: expected a base that uses each of its layers once, found one that uses a layer before {operation.name!r} in several "
            "places; train it end to end, without from"
        )
    return [makers[id(tensor)] for tensor in tensors if makers[id(tensor)] != itself]


def _is_input(operation: Any) -> bool:
    return isinstance(operation, backend.load_keras().layers.InputLayer)


def _first_of_blocks(order: Sequence[str], count: int, name: str) -> str:
    """The first layer of the last ``count`` blocks."""
    first: dict[str, str] = {}
    for layer in order:
        if found := BLOCK.search(layer):
            first.setdefault(found[1], layer)
    if not first:
        raise BaseError(
            f"from: the layers of {name} have no names of blocks; name the layer from which it is to be trained"
        )
    if count > len(first):
        listed = ", ".join([*first][:3])
        raise BaseError(f"from: {name} has {len(first)} blocks ({listed}, …), found {count}; name fewer, or a layer")
    return first[[*first][-count]]


def _nearest_places(model: Any, order: Sequence[str], cuts: Sequence[Cut], first: str) -> list[str]:
    """The nearest layers before and after ``first`` from which a base could be trained."""
    last = max(order.index(each.name) for each in model.layers if each.name in order and each.weights)
    at = order.index(first)
    there = [(order.index(each.behind[0]), each.behind[0]) for each in cuts if each.before is not None]
    earlier = [name for place, name in there if place < at][-1:]
    later = [name for place, name in there if at < place <= last][:1]
    return earlier + later
