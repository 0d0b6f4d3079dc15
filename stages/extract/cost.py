"""``[cost]``: what an hour of the machine costs, and what that makes of seconds."""

import math
from typing import Annotated

from pydantic import Field

from stages.fields import Spec


class CostSpec(Spec):
    """``[cost]``. ``per_hour`` is in ``currency``, which is a sign such as "€", or letters such as "CHF"."""

    per_hour: Annotated[float, Field(gt=0)]
    currency: Annotated[str, Field(min_length=1, max_length=12)] = "$"

    def of(self, seconds: float) -> float:
        """What so many seconds cost."""
        return self.per_hour * seconds / 3600

    def in_words(self, amount: float) -> str:
        """An amount with its currency: ``$2.50``, ``0.042 CHF``; small ones with two digits that count."""
        decimals = 2 if amount >= 0.1 or not amount else min(1 - math.floor(math.log10(amount)), 8)
        number = f"{amount:,.{decimals}f}"
        return f"{number} {self.currency}" if self.currency[-1].isalnum() else f"{self.currency}{number}"
