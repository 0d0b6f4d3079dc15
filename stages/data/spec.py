"""``[data]``: where the images are, and how they are split."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from stages.fields import Fraction, PositiveInt, Seed, Spec

CSV_NAME = "labels.csv"
GROUP = "a .csv file, a pattern with one part in brackets, or a column of the CSV of labels"


class DataSpec(Spec):
    """``[data]``: where the images are, and how they are split. ``root``, ``labels`` and ``corrections`` are absolute paths here,
    and so is ``group`` where it names a CSV; else it is a pattern on file names, or a column of the CSV of labels."""

    root: Path
    layout: Literal["splits", "classes", "names", "csv", "ids"] | None = None
    labels: Path | None = None
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: Seed = 0
    on_bad_image: Literal["skip", "fail"] = "skip"
    corrections: Path | None = None
    group: str | None = None
    copies: Literal["keep", "train"] = "keep"
    limit: int | float | None = None
    per_class: PositiveInt | None = None

    @property
    def tables(self) -> list[Path]:
        """The files beside the images that the manifest is made of, but for that of the labels."""
        return [path for path in (self.corrections, self.group_file) if path]

    @property
    def group_file(self) -> Path | None:
        """The CSV of groups, where there is one."""
        return Path(self.group) if self.group and self.group.lower().endswith(".csv") else None

    @property
    def group_column(self) -> str | None:
        """The column of the CSV of labels that names groups, where there is one: no file, and no pattern with a part in brackets."""
        return self.group if self.group and not self.group_file and not re.compile(self.group).groups else None

    @property
    def labels_file(self) -> Path:
        """The CSV of labels, which may be there or not."""
        return self.labels or self.root / CSV_NAME

    @field_validator("group")
    @classmethod
    def _has_one_bracketed_part(cls, group: str | None) -> str | None:
        if group is None or group.lower().endswith(".csv"):
            return group
        try:
            parts = re.compile(group).groups
        except re.error as error:
            raise ValueError(f"expected {GROUP}, found {group!r} ({error})") from None
        if parts > 1:
            raise ValueError(f"expected {GROUP}, found {group!r} with {parts} parts")
        return group

    @field_validator("limit", mode="before")
    @classmethod
    def _is_a_number_or_a_share(cls, limit: Any) -> Any:
        whole = isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
        if limit is None or whole or (isinstance(limit, float) and 0 < limit < 1):
            return limit
        raise ValueError(f"expected a whole number of images above 0, or a fraction between 0 and 1, found {limit!r}")

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "DataSpec":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must stay below 1, found {self.validation} + {self.test}; nothing would be left to train on"
            )
        if self.validation == 0:
            raise ValueError("validation must be above 0: heads are chosen by their validation scores")
        return self
