"""Successive halving: start all trials, and after each rung of epochs go on with the best.

K. Jamieson, A. Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stages.bases.backend import load_keras
from stages.progress import counted
from stages.sweeps.group import Group
from stages.sweeps.spec import SweepSpec
from stages.sweeps.sweep import Sweep
from stages.sweeps.trials import Trial
from stages.training.spec import DenseSpec

# Weights and slots that stay in memory from rung to rung; those beyond wait on the disk.
HELD_BYTES = 2_000_000_000


def halve(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Train dense trials until all but the best are dropped, and these are at their end."""
    alive = list(trials)
    longest = max(trial.spec.epochs for trial in trials if isinstance(trial.spec, DenseSpec))
    held: list[Group] = []
    # Two groups at once: one compiles, which takes one core, while the other trains. Each stream takes all the memory there is.
    whole = all(sweep.data[trial.base].fits(trial.spec.pool, trial.layers, trial.spec.views) for trial in trials)
    ends = rungs(sweep.spec, longest)
    for rung, epochs in enumerate(ends, 1):
        under_way = {trial.key for group in held for trial in group.trials}
        lacking = [t for t in alive if not sweep.ledger.covers(t.key, epochs) and t.key not in under_way]
        where = f"rung {rung} of {len(ends)}, {counted(len(alive), 'trial')}, {counted(epochs, 'epoch')}"
        held = _climb(sweep, held, lacking, epochs, f"Sweep {sweep.name}: {where}", 2 if whole else 1)
        if epochs == longest:
            return
        alive = sorted(alive, key=lambda trial: sweep.ledger[trial.key].after(epochs).ranking(sweep.metric))
        alive = alive[: -(-len(alive) // sweep.spec.factor)]
        kept = {trial.key for trial in alive}
        sweep.checkpoints.remove(trial.key for trial in trials if trial.key not in kept)
        for group in held:
            group.keep(kept)
        held = [group for group in held if group.alive]
        sweep.show(alive, f", {len(alive)} of {len(trials)} trials after rung {rung} of {len(ends)}")


def _climb(
    sweep: Sweep, held: Sequence[Group], trials: Sequence[Trial], epochs: int, what: str, threads: int
) -> list[Group]:
    """Train the groups that are held, and the trials in groups of their own, to a rung; those that stay in memory."""
    room = HELD_BYTES - sum(group.bytes for group in held)
    jobs: list[tuple[Group | list[Trial], bool]] = [(group, True) for group in held]
    for wave in [wave for group in sweep.groups(trials) for wave in sweep.waves(group)]:
        room -= sum(map(sweep.bytes, wave))
        jobs.append((wave, room >= 0))

    def climb(each: Group | list[Trial], hold: bool) -> Group | None:
        group = each if isinstance(each, Group) else sweep.begin(each)
        sweep.advance(group, epochs)
        return group if hold or not group.write() else None

    load_keras()  # not by two threads at once
    found = []
    with sweep.progress.task(what, len(jobs), "groups") as advance, ThreadPoolExecutor(threads) as executor:
        for group in executor.map(lambda job: climb(*job), jobs):
            found.append(group)
            advance(1)
    return [group for group in found if group is not None]


def rungs(spec: SweepSpec, longest: int) -> list[int]:
    """Epochs at which the worst are dropped, and those of the end."""
    found = []
    epochs = spec.min_epochs
    while epochs < longest:
        found.append(epochs)
        epochs *= spec.factor
    return [*found, longest]
