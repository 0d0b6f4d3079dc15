"""``[data]``: where the images are, and how they are split."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from stages.fields import Fraction, Seed, Spec


class DataSpec(Spec):
    """``[data]``: where the images are, and how they are split. ``root``, ``labels`` and ``corrections`` are absolute paths here."""

    root: Path
    layout: Literal["splits", "classes", "names", "csv"] | None = None
    labels: Path | None = None
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: Seed = 0
    on_bad_image: Literal["skip", "fail"] = "skip"
    corrections: Path | None = None
    copies: Literal["keep", "train"] = "keep"

    @property
    def tables(self) -> list[Path]:
        """The files beside the images that the manifest is made of, but for that of the labels."""
        return [self.corrections] if self.corrections else []

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "DataSpec":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must stay below 1, found {self.validation} + {self.test}; nothing would be left to train on"
            )
        if self.validation == 0:
            raise ValueError("validation must be above 0: heads are chosen by their validation scores")
        return self
