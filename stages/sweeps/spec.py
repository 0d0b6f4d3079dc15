"""``[sweeps.NAME]``: which variants of a head are tried, and how they are scored."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.fields import KeyedSpec, PositiveInt, Range, Seed, Values


class SweepSpec(KeyedSpec):
    """``[sweeps.NAME]``: many variants of one head, tried on the validation images.

    ``grid`` maps fields of the head (``params.C`` for those of an estimator) to the values to try, or to a ``Range`` where
    trials are drawn; without it there is one trial, the head as it is. ``cv`` folds take the place of the validation split;
    ``repeats`` trains with as many seeds.
    """

    FIRST = frozenset({"head", "strategy", "grid", "trials", "seed", "factor", "min_epochs", "cv", "repeats"})

    head: str
    strategy: Literal["grid", "random", "halving", "tpe"] = "grid"
    grid: dict[str, Values] = {}
    trials: PositiveInt | None = None
    seed: Seed = 0
    factor: Annotated[int, Field(ge=2)] = 3
    min_epochs: PositiveInt = 1
    cv: Annotated[int, Field(ge=2, le=20)] | None = None
    repeats: PositiveInt = 1
    refit: bool = False

    def whole(self) -> dict[str, Any]:
        """``refit`` is left out: it says what is made of the winner, not which trials there are."""
        return {name: value for name, value in super().whole().items() if name != "refit"}

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSpec":
        if self.strategy != "grid" and not self.grid:
            raise ValueError(f'grid: strategy "{self.strategy}" needs fields of the head to vary; set grid')
        if self.strategy != "halving" and (idle := self.model_fields_set & {"factor", "min_epochs"}):
            raise ValueError(f'{min(idle)}: only strategy "halving" has it, found "{self.strategy}"; leave it out')
        if self.strategy == "halving" and "epochs" in self.grid:
            raise ValueError('grid.epochs: strategy "halving" divides the epochs itself; set epochs in the head')
        if "kind" in self.grid:
            raise ValueError("grid.kind: trials cannot differ in it; sweep over a head of each kind")
        if misplaced := sorted(self.grid.keys() & {"cv", "repeats", "refit"}):
            raise ValueError(f"grid.{misplaced[0]}: trials cannot differ in it; set {misplaced[0]} in the sweep itself")
        ranges = [name for name, values in self.grid.items() if isinstance(values, Range)]
        drawn = self.strategy in ("random", "tpe") or (self.strategy == "halving" and self.trials is not None)
        if ranges and not drawn:
            advice = "set trials" if self.strategy == "halving" else 'take strategy "random", with trials'
            raise ValueError(f'grid.{ranges[0]}: strategy "{self.strategy}" takes a list, found a range; {advice}')
        if self.strategy == "grid" and self.trials is not None:
            raise ValueError('trials: strategy "grid" tries all there are; leave trials out, or take "random"')
        if self.strategy in ("random", "tpe") and self.trials is None:
            raise ValueError(f'trials: strategy "{self.strategy}" needs to know how many; set trials')
        return self
