"""Many dense heads at once: those of one shape are stacked, epoch by epoch, each with its own early stopping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras
from stages.training import stack
from stages.training.early_stopping import is_at_its_end, is_kept
from stages.training.member import Begun, Fitted, Member, choices, class_weights
from stages.training.program import program
from stages.training.source import Block, Source
from stages.training.spec import DenseSpec
from stages.training.watched import Watched

# Stacked weights and slots beyond this no longer stay in a processor's caches, and more heads at once are not quicker.
STACK_BYTES = 8_000_000
# What the weights and slots of stopped heads would be read and written in the epochs that are left, when it takes as long as
# compiling a function for a smaller stack: about half a second.
BYTES_WORTH_COMPILING = 10_000_000_000
# XLA takes a second and more to compile what trains a stack. In each step it saves the dispatch of a few hundred operations, and, as
# it fuses them, most of the reading and writing: seconds a step, a byte of weights and slots, and a byte of the batch (bench.compiled).
SECONDS_TO_COMPILE = 1.2
SAVED_A_STEP, SAVED_A_WEIGHT_BYTE, SAVED_A_BATCH_BYTE = 1.5e-4, 6e-10, 1e-9
# Rows that are scored at once, so that what hidden layers hold for all heads stays bounded.
SCORED_ROWS = 1024


class Training:
    """Heads of one shape in training. ``fitted[i]`` says how far ``members[i]`` has come.

    Without ``keep_weights`` scores and outcomes are all that is kept, these with the log-probabilities of all classes where
    ``whole``, and heads may be ``begun``, all of them at the same epoch.

    Stacks are made by the order of the members, and made anew without those that have stopped as soon as going on with them
    would cost more than compiling does; by counts and never by the clock, so that the same members give the same numbers.
    """

    def __init__(
        self,
        members: Sequence[Member],
        source: Source,
        n_classes: int,
        keep_weights: bool = True,
        begun: Sequence[Begun] = (),
        whole: bool = False,
    ) -> None:
        self._keep_weights = keep_weights
        self._whole = whole and n_classes > 2  # of two classes, one says all of the other
        self.members = list(members)
        self.source = source
        self.n_classes = n_classes
        (self.shape,) = {stack.Shape.of(member.spec, source.inputs, n_classes) for member in members}
        self.fitted = [each.fitted for each in begun] or [Fitted() for _ in members]
        self.epoch = max(len(each.history) for each in self.fitted)
        self._rows = _union([member.train for member in members])
        self._scored = np.sort(_union([member.validation for member in members]))
        self._found: dict[int, NDArray[np.int32]] = {}
        # A batch is no longer than there are rows, however large it was asked for.
        self._batch = min(self.shape.batch_size, max(len(member.train) for member in members))
        self._validates = [np.isin(self._scored, member.validation) for member in members]
        self._watched = Watched(members, self._scored, n_classes if self._whole else 0)
        self._choices = choices(members)
        self._everything = [np.array_equal(member.train, self._rows) for member in members]
        steps = {-(-len(member.train) // self._batch) for member in members}
        ragged = not all(self._everything) and (len(steps) > 1 or not source.whole)
        self._uses = stack.Uses.of([member.spec for member in members], ragged)
        # As if no head stopped early: by counts and never by the clock, so that the same members give the same numbers.
        to_do = -(-len(self._rows) // self._batch) * max(member.spec.epochs for member in members)
        xla = to_do > steps_worth_compiling(self.shape, self._batch, len(members))
        self._program = program(self.shape, self._uses, xla)
        # Stacks of about the same size, as each size is compiled for itself.
        active = self.active
        count = -(-len(active) // max(1, STACK_BYTES // self.shape.bytes))
        parts = [list(map(int, part)) for part in np.array_split(active, count)] if active else []
        self._stacks = [self._new_stack(heads, [begun[i].state for i in heads] if begun else []) for heads in parts]

    def advance(self, epoch: int, tick: Callable[[int], None] = lambda heads: None) -> None:
        """Train until ``epoch`` epochs are done, or every head has stopped. ``tick`` is told of epochs of single heads."""
        while self.epoch < epoch and self._stacks:
            self._one_epoch(tick)

    def drop(self, heads: Sequence[int]) -> None:
        """Train these members no further."""
        for i in heads:
            if not self.fitted[i].stopped:
                self.fitted[i].stopped = self.fitted[i].dropped = True
        self._restack()

    @property
    def active(self) -> list[int]:
        """The members that are still trained."""
        return [i for i, fitted in enumerate(self.fitted) if not fitted.stopped]

    def snapshot(self) -> list[Begun]:
        """All heads as they are now, for another training to go on with."""
        states = {i: state for each in self._stacks for i, state in zip(each.heads, each.state.split(), strict=True)}
        return [Begun(fitted, [] if fitted.stopped else states[i]) for i, fitted in enumerate(self.fitted)]

    def _new_stack(self, heads: list[int], begun: list[list[NDArray[np.float32]]]) -> "_Stack":
        specs = [self.members[i].spec for i in heads]
        labels = [self.source.y[self.members[i].train] for i in heads]
        weight = np.stack([class_weights(*pair, self.n_classes) for pair in zip(specs, labels, strict=True)])
        state = stack.State.joined(begun, self.shape) if begun else stack.initial_state(specs, self.shape)
        return _Stack(heads, state, stack.Rates.of(specs, weight))

    def _one_epoch(self, tick: Callable[[int], None]) -> None:
        for each in self._stacks:
            each.trained, each.scored = np.zeros((2, 3, len(each.heads)))
            each.seconds = 0.0
        for block in self.source.blocks(self._rows, self.epoch):
            for each in self._stacks:
                start = perf_counter()
                draws = self._draws(each.heads, block)
                if draws.orders.shape[0]:
                    each.state, found = self._program.train(each.state, each.rates, block.X, block.y, draws)
                    each.trained += _as_array(found)
                each.seconds += perf_counter() - start
        self._watched.begin(self.active)
        for block in self.source.blocks(self._scored, None):
            for each in self._stacks:
                start = perf_counter()
                self._score(each, block)
                each.seconds += perf_counter() - start
        self.epoch += 1
        for each in self._stacks:
            tick(self._note(each))
        self._choose()
        self._restack()

    def _draws(self, heads: Sequence[int], block: Block) -> stack.Draws:
        specs, size = [self.members[i].spec for i in heads], self._batch
        draws = [stack.Draw(spec.seed, self.epoch, block.number) for spec in specs]
        here = [self._places(i, block.positions) for i in heads]
        steps = -(-max(map(len, here)) // size)
        orders = [draw.order(rows, size, steps) for draw, rows in zip(draws, here, strict=True)]
        if (views := block.views) is not None:
            orders = [draw.views(order, views) for draw, order in zip(draws, orders, strict=True)]
        mixup = [spec.mixup for spec in specs] if self._uses.mixup else []
        return stack.Draws.of(draws, mixup, np.stack(orders, axis=1), max(1, len(self.shape.units)))

    def _places(self, i: int, positions: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where a member's training rows stand in a block. None for a head that has stopped."""
        if self.fitted[i].stopped:
            return np.empty(0, np.int32)
        if self._everything[i]:
            return np.arange(len(positions), dtype=np.int32)
        if i in self._found:
            return self._found[i]
        found = np.flatnonzero(np.isin(positions, self.members[i].train)).astype(np.int32)
        if self.source.whole:
            self._found[i] = found
        return found

    def _score(self, each: "_Stack", block: Block) -> None:
        member = np.zeros((len(each.heads), block.X.shape[0]), np.float32)
        places = np.searchsorted(self._scored, block.positions)
        for k, i in enumerate(each.heads):
            member[k, : len(block.positions)] = self._validates[i][places]
        for start in range(0, block.X.shape[0], SCORED_ROWS):
            part = slice(start, start + SCORED_ROWS)
            here = load_keras().ops.convert_to_tensor(member[:, part])
            X, y = block.X[part], block.y[part]
            sums, logits = self._program.evaluate(each.state, each.rates, X, y, here)
            each.scored += _as_array(sums)
            if self._watched.wants(each.heads):
                to_numpy = load_keras().ops.convert_to_numpy
                found = [to_numpy(value) for value in self._program.outcomes(logits, y, self._whole)]
                self._watched.put(each.heads, places[part], found)

    def _note(self, each: "_Stack") -> int:
        """Write down the epoch of the heads that were trained in it; says how many."""
        active = [(k, i) for k, i in enumerate(each.heads) if not self.fitted[i].stopped]
        loss, accuracy = each.trained[:2] / np.maximum(each.trained[2], 1)
        val_loss, val_accuracy = each.scored[:2] / np.maximum(each.scored[2], 1)
        for k, i in active:
            row = {"loss": float(loss[k]), "accuracy": float(accuracy[k])}
            row |= {"val_loss": float(val_loss[k]), "val_accuracy": float(val_accuracy[k])}
            self.fitted[i].history.append(row)
            self.fitted[i].seconds += each.seconds / len(active)
        return len(active)

    def _choose(self) -> None:
        """Keep this epoch of the heads that are better than before, and stop those whose patience is at an end."""
        better: set[int] = set()
        for group in self._choices:
            mine = [self.fitted[i] for i in group]
            if mine[0].stopped:
                continue
            rows = [len(self.members[i].validation) for i in group]
            spec = self.members[group[0]].spec
            if is_kept(mine, rows, spec.monitor, self.members[group[0]].last):
                better.update(group)
                for i in group:
                    self.fitted[i].best_epoch, self.fitted[i].outcomes = self.epoch, self._watched.of(i)
            for each in mine:
                each.stopped = is_at_its_end(each, spec.epochs, spec.patience)
        for stacked in self._stacks if self._keep_weights else ():
            places = [k for k, i in enumerate(stacked.heads) if i in better]
            for k, weights in zip(places, stacked.state.heads(places, self.shape) if places else [], strict=True):
                self.fitted[stacked.heads[k]].weights = weights

    def _restack(self) -> None:
        kept = []
        for each in self._stacks:
            places = [k for k, i in enumerate(each.heads) if not self.fitted[i].stopped]
            left = max((self.members[each.heads[k]].spec.epochs - self.epoch for k in places), default=0)
            steps = -(-len(self._rows) // self._batch) * left
            if (len(each.heads) - len(places)) * self.shape.bytes * steps > BYTES_WORTH_COMPILING:
                each = each.take(places)
            if places:
                kept.append(each)
        self._stacks = kept


@dataclass
class _Stack:
    """Heads that are trained in one; sums (3, K) over the rows of this epoch as in ``stack.Sums``, and its seconds."""

    heads: list[int]
    state: stack.State
    rates: stack.Rates
    trained: NDArray[np.float64] = field(init=False)
    scored: NDArray[np.float64] = field(init=False)
    seconds: float = field(init=False)

    def take(self, places: Sequence[int]) -> "_Stack":
        keras, kept = load_keras(), np.array(places, np.int32)
        stacked = (self.state, self.rates)
        taken = keras.tree.map_structure(lambda each: keras.ops.take(each, kept, axis=0), stacked)
        return _Stack([self.heads[k] for k in places], *taken)


def _as_array(sums: stack.Sums) -> NDArray[np.float64]:
    return np.array([load_keras().ops.convert_to_numpy(each) for each in sums], np.float64)


def _union(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All positions that occur, sorted; the very array where all heads have the same."""
    if all(np.array_equal(each, rows[0]) for each in rows):
        return rows[0]
    return np.unique(np.concatenate(rows))


def steps_worth_compiling(shape: stack.Shape, batch: int, heads: int) -> float:
    """The steps in which XLA saves what it takes to compile, for so many heads of this shape and batches of so many rows."""
    weights = min(shape.bytes * heads, max(STACK_BYTES, shape.bytes))
    saved = SAVED_A_STEP + SAVED_A_WEIGHT_BYTE * weights + SAVED_A_BATCH_BYTE * 4 * batch * shape.inputs
    return SECONDS_TO_COMPILE / saved


def train_all(
    members: Sequence[Member],
    source: Source,
    n_classes: int,
    tick: Callable[[int], None] = lambda heads: None,
) -> list[Fitted]:
    """Train every member to its end, those of one shape together; what became of each, in their order."""
    out: dict[int, Fitted] = {}
    for group in by_shape([member.spec for member in members], source.inputs, n_classes):
        training = Training([members[i] for i in group], source, n_classes)
        training.advance(max(members[i].spec.epochs for i in group), tick)
        out |= zip(group, training.fitted, strict=True)
    return [out[i] for i in range(len(members))]


def by_shape(specs: Sequence[DenseSpec], inputs: int, n_classes: int) -> list[list[int]]:
    """Positions of the specs that can be stacked with one another."""
    groups: dict[stack.Shape, list[int]] = {}
    for i, spec in enumerate(specs):
        groups.setdefault(stack.Shape.of(spec, inputs, n_classes), []).append(i)
    return list(groups.values())
