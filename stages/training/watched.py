"""The outcomes of one epoch of heads that are trained together, gathered block by block."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.training.member import Member
from stages.training.outcomes import Outcomes


class Watched:
    """Of the members that have rows ``scored``, what they say of these in this epoch.

    ``every`` (n,) are the sorted positions of all rows that are gone through; with log-probabilities of so many ``classes``, 0 for
    those of the true class alone.
    """

    def __init__(self, members: Sequence[Member], every: NDArray[np.int64], classes: int) -> None:
        self._classes = classes
        self._now: dict[int, Outcomes] = {}
        # Where each of the rows stands among those of the member, -1 for nowhere; members that share an array share this.
        self._slots: dict[int, NDArray[np.intp]] = {}
        self._sizes: dict[int, int] = {}
        known: dict[int, NDArray[np.intp]] = {}
        for i, member in enumerate(members):
            if (rows := member.scored) is None:
                continue
            if id(rows) not in known:
                known[id(rows)] = np.full(len(every), -1, np.intp)
                known[id(rows)][np.searchsorted(every, rows)] = np.arange(len(rows))
            self._slots[i], self._sizes[i] = known[id(rows)], len(rows)

    def begin(self, active: Iterable[int]) -> None:
        """Begin an epoch, of these members."""
        self._now = {i: Outcomes.empty(self._sizes[i], self._classes) for i in active if i in self._slots}

    def wants(self, heads: Iterable[int]) -> bool:
        """Whether the outcomes of one of these members are kept."""
        return any(i in self._now for i in heads)

    def put(self, heads: Sequence[int], places: NDArray[np.intp], found: Sequence[NDArray[np.generic]]) -> None:
        """Keep what was ``found`` of these members (K, m or more, …), on rows that stand at ``places`` (m,) among all."""
        for k, i in enumerate(heads):
            if i in self._now:
                slots = self._slots[i][places]
                mine = np.flatnonzero(slots >= 0)
                self._now[i].put(slots[mine], [each[k][mine] for each in found])

    def of(self, i: int) -> Outcomes | None:
        """All that a member says in this epoch; None where that is not kept."""
        return self._now.get(i)
