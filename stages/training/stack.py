"""Dense heads of one shape, stacked: what they share, how they begin, and what chance decides for each.

Each weight has the heads along its first axis. Each head has its own rates, and its own initial weights, order of batches and
dropout, all drawn from its own seed and none from its place in the stack: a head comes out as if it had been trained alone.
``stages.training.program`` computes with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras
from stages.training.spec import DenseSpec

# Slots of an optimizer for each weight.
SLOTS = {"rmsprop": 1, "adam": 2, "adamw": 2, "sgd": 1}

# What a head's seed is divided into, so that none of these draws depends on how many the others make.
WEIGHTS, ORDER, DROPOUT, MIXUP, VIEWS = 0, 1, 2, 3, 4

# No row: fills the last batch of an epoch.
NOTHING = -1


@dataclass(frozen=True)
class Shape:
    """What heads must share to be stacked. ``outputs`` is 1 for two classes (a sigmoid), else their number (a softmax)."""

    inputs: int
    units: tuple[int, ...]
    outputs: int
    activation: str
    batch_norm: bool
    batch_size: int
    optimizer: str

    @classmethod
    def of(cls, spec: DenseSpec, inputs: int, n_classes: int) -> "Shape":
        """The shape of a head on ``inputs`` features."""
        outputs = 1 if n_classes == 2 else n_classes
        return cls(
            inputs, tuple(spec.units), outputs, spec.activation, spec.batch_norm, spec.batch_size, spec.optimizer
        )

    @property
    def weights(self) -> list[tuple[str, tuple[int, int]]]:
        """Kind and shape of each weight of one head, in Keras's order."""
        found: list[tuple[str, tuple[int, int]]] = []
        inputs = self.inputs
        for units in self.units:
            others = ("gamma", "beta") if self.batch_norm else ("bias",)
            found += [("kernel", (inputs, units)), *((kind, (1, units)) for kind in others)]
            inputs = units
        return [*found, ("kernel", (inputs, self.outputs)), ("bias", (1, self.outputs))]

    @property
    def kept_small(self) -> list[int]:
        """Places of the weights that L2 and max-norm are for: kernels of hidden layers, or of the only layer there is."""
        kernels = [i for i, (kind, _) in enumerate(self.weights) if kind == "kernel"]
        return kernels[:-1] or kernels

    @property
    def bytes(self) -> int:
        """Bytes of one head's weights and of what its optimizer keeps for them."""
        return 4 * sum(a * b for _, (a, b) in self.weights) * (1 + SLOTS[self.optimizer])


class Uses(NamedTuple):
    """What one head of a stack at least makes use of; the rest is not compiled. Fields bear the names of those of the spec.

    ``focal`` is the loss. ``ragged`` heads have different numbers of rows: one that has no row left in a step is not changed by it.
    """

    dropout: bool
    mixup: bool
    l2: bool
    max_norm: bool
    focal: bool
    ragged: bool

    @classmethod
    def of(cls, specs: Sequence[DenseSpec], ragged: bool) -> "Uses":
        """What heads with these specs make use of."""
        named = {
            name: any(getattr(spec, name) for spec in specs) for name in cls._fields if name in DenseSpec.model_fields
        }
        return cls(**named, focal=any(spec.loss == "focal" for spec in specs), ragged=ragged)


class Rates(NamedTuple):
    """What differs between stacked heads, each (K, 1, 1) float32 but ``class_weight`` (K, classes). Fields bear the names of those of
    the spec.

    Of a head without focal loss ``focal_gamma`` is 0, of one without a limit ``max_norm`` is infinite.
    """

    learning_rate: Any
    momentum: Any
    weight_decay: Any
    dropout: Any
    label_smoothing: Any
    focal_gamma: Any
    l2: Any
    max_norm: Any
    class_weight: Any

    @classmethod
    def of(cls, specs: Sequence[DenseSpec], class_weight: NDArray[np.float32]) -> "Rates":
        """The rates of heads with these specs; ``class_weight`` (K, classes) is that of each class's rows."""
        told = [
            dict(spec)
            | ({} if spec.loss == "focal" else {"focal_gamma": 0.0})
            | ({} if spec.max_norm else {"max_norm": np.inf})
            for spec in specs
        ]
        columns = [np.array([each[name] for each in told], np.float32)[:, None, None] for name in cls._fields[:-1]]
        return cls(*map(load_keras().ops.convert_to_tensor, (*columns, class_weight)))


class State(NamedTuple):
    """K heads as they train: lists of ``weights``, of the optimizer's ``slots`` and of ``moving`` averages, each
    (K, …), and ``steps`` done (K, 1, 1).
    """

    weights: list[Any]
    slots: list[Any]
    moving: list[Any]
    steps: Any

    def split(self) -> list[list[NDArray[np.float32]]]:
        """Each head on its own, as ``joined`` takes them."""
        to_numpy = load_keras().ops.convert_to_numpy
        found = [to_numpy(each) for each in (*self.weights, *self.slots, *self.moving, self.steps)]
        return [[each[k].copy() for each in found] for k in range(len(found[-1]))]

    @classmethod
    def joined(cls, heads: Sequence[Sequence[NDArray[np.float32]]], shape: Shape) -> "State":
        """Heads of this shape that were ``split``, stacked again."""
        stacked = [load_keras().ops.convert_to_tensor(np.stack(each)) for each in zip(*heads, strict=True)]
        slots = len(shape.weights)
        moving = slots + SLOTS[shape.optimizer] * slots
        return cls(stacked[:slots], stacked[slots:moving], stacked[moving:-1], stacked[-1])

    def heads(self, places: Sequence[int], shape: Shape) -> list[list[NDArray[np.float32]]]:
        """The weights of some of the heads, each as ``keras.Model.set_weights`` takes them."""
        to_numpy = load_keras().ops.convert_to_numpy
        moving = iter(self.moving)
        found: list[NDArray[np.float32]] = []
        for (kind, _), each in zip(shape.weights, self.weights, strict=True):
            rows = to_numpy(each)
            found.append(rows if kind == "kernel" else rows[:, 0])
            if kind == "beta":
                found += [to_numpy(next(moving))[:, 0], to_numpy(next(moving))[:, 0]]
        return [[each[k].copy() for each in found] for k in places]


class Sums(NamedTuple):
    """Sums over rows for each head (K,): the ``loss`` (nats, weighted), the rows that are ``correct``, all ``rows``."""

    loss: Any
    correct: Any
    rows: Any


def initial_state(specs: Sequence[DenseSpec], shape: Shape) -> State:
    """Untrained heads: kernels uniform after Glorot and Bengio (AISTATS 2010), from each head's seed."""
    ops = load_keras().ops
    drawn = [_initial_weights(spec.seed, shape) for spec in specs]
    weights = [ops.convert_to_tensor(np.stack(each)) for each in zip(*drawn, strict=True)]
    slots = [ops.zeros_like(each) for _ in range(SLOTS[shape.optimizer]) for each in weights]
    moving = []
    for units in shape.units if shape.batch_norm else ():
        moving += [ops.zeros((len(specs), 1, units)), ops.ones((len(specs), 1, units))]
    return State(weights, slots, moving, ops.zeros((len(specs), 1, 1)))


def _initial_weights(seed: int, shape: Shape) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng([seed, WEIGHTS])
    found = []
    for kind, (inputs, units) in shape.weights:
        if kind == "kernel":
            limit = np.sqrt(6 / (inputs + units))
            found.append(((rng.random((inputs, units), np.float32) * 2 - 1) * limit).astype(np.float32))
        else:
            found.append(np.full((inputs, units), 1.0 if kind == "gamma" else 0.0, np.float32))
    return found


class Draw(NamedTuple):
    """What chance decides for one head in one epoch (from 0), in the block of rows with this number."""

    seed: int
    epoch: int
    block: int

    def order(self, rows: NDArray[np.int32], batch_size: int, steps: int) -> NDArray[np.int32]:
        """The ``rows`` shuffled: (steps, batch size), filled up with ``NOTHING``."""
        out = np.full(steps * batch_size, NOTHING, np.int32)
        out[: len(rows)] = np.random.default_rng([self.seed, ORDER, self.epoch, self.block]).permutation(rows)
        return out.reshape(steps, batch_size)

    def views(self, order: NDArray[np.int32], views: NDArray[np.int32]) -> NDArray[np.int32]:
        """An ``order`` (steps, batch size) in which each row is itself or one of its ``views`` (m, v), each as probable."""
        rng = np.random.default_rng([self.seed, VIEWS, self.epoch, self.block])
        drawn = views[np.maximum(order, 0), rng.integers(0, views.shape[1], order.shape)]
        return np.where(order == NOTHING, NOTHING, drawn)

    def dropout(self, layers: int) -> NDArray[np.int32]:
        """A seed for each layer (layers,) that drops units."""
        rng = np.random.default_rng([self.seed, DROPOUT, self.epoch, self.block])
        return rng.integers(0, 2**31, layers, np.int32)

    def mixup(self, order: NDArray[np.int32], alpha: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """For each row of an ``order`` another of its batch, and the share that remains of the first, both (steps, batch size).

        Each batch is shuffled once more, so that a row may also meet itself; shares are drawn from Beta(``alpha``, ``alpha``).
        """
        partners, shares = order.copy(), np.ones(order.shape, np.float32)
        rows = order[order != NOTHING]  # in front, whatever the batches are filled up to
        rng = np.random.default_rng([self.seed, MIXUP, self.epoch, self.block])
        place = np.arange(len(rows))
        partners.ravel()[place] = rows[np.lexsort((rng.random(len(rows)), place // order.shape[1]))]
        shares.ravel()[place] = rng.beta(alpha, alpha, len(rows))
        return partners, shares


class Draws(NamedTuple):
    """What chance decides for stacked heads in one epoch and block: ``orders`` (steps, K, batch size) of positions, and the ``seeds`` of
    dropout (layers, K). Where one mixes rows, their ``partners`` and the ``shares`` that remain of them, as ``orders``, else empty.
    """

    orders: Any
    seeds: Any
    partners: Any
    shares: Any

    @classmethod
    def of(cls, draws: Sequence[Draw], mixup: Sequence[float], orders: NDArray[np.int32], layers: int) -> "Draws":
        """Of heads with so much ``mixup`` each, none of them where it is empty, in these ``orders``."""
        seeds = np.stack([draw.dropout(layers) for draw in draws], axis=1)
        partners = orders.copy() if mixup else np.empty(0, np.int32)
        shares = np.ones(partners.shape, np.float32)
        for k, (draw, alpha) in enumerate(zip(draws, mixup, strict=bool(mixup))):
            if alpha:
                partners[:, k], shares[:, k] = draw.mixup(orders[:, k], alpha)
        return cls(*map(load_keras().ops.convert_to_tensor, (orders, seeds, partners, shares)))
