"""Trials that learn from those before where to look, through Optuna."""

from collections.abc import Callable
from typing import Any

from cache.errors import HeadError
from stages.fields import Range
from stages.heads.scored import METRICS
from stages.progress import counted
from stages.sweeps.sweep import Sweep
from stages.sweeps.trials import Trial

# Trials that are asked for before any of them is told: enough to train together.
ASKED_AT_ONCE = 8
WORST_LOSS = 1e9  # of a trial that came to nothing: beyond any other


def search(sweep: Sweep, variant: Callable[[dict[str, Any]], Trial]) -> list[Trial]:
    """Ask Optuna's tree-structured Parzen estimator for a batch of trials, train them, tell it; until there are enough.

    J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011. It asks for the same trials in a run that goes
    on where another was killed, as it is told the same. Raises HeadError where Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise HeadError(
            f'strategy "tpe": expected the package optuna, found none ({error}); install headstart[tpe]'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=sweep.spec.seed, constant_liar=True)
    high = METRICS[sweep.metric] == "high"
    study = optuna.create_study(direction="maximize" if high else "minimize", sampler=sampler)
    trials: dict[str, Trial] = {}
    wanted, grid = sweep.spec.trials or 0, sweep.spec.grid
    sweep.progress.say(f"sweep {sweep.name}: {counted(wanted, 'trial')}, asked for {ASKED_AT_ONCE} at a time")
    with sweep.progress.task(f"Sweep {sweep.name}", wanted, "trials") as advance:
        for start in range(0, wanted, ASKED_AT_ONCE):
            asked = [study.ask() for _ in range(min(ASKED_AT_ONCE, wanted - start))]
            batch = [variant({name: _suggested(each, name, values) for name, values in grid.items()}) for each in asked]
            trials |= {trial.key: trial for trial in batch}
            sweep.remeasure(batch)
            todo = {trial.key: trial for trial in batch if not sweep.ledger.complete(trial.key)}
            advance(len(batch) - len(todo))
            sweep.train(list(todo.values()), list(trials.values()), advance)
            for each, trial in zip(asked, batch, strict=True):
                record = sweep.ledger[trial.key]
                chosen = record.scores[-1].by(sweep.metric) if record.scored else None
                if chosen and chosen.value is not None:
                    study.tell(each, chosen.value)
                else:  # one that failed would not count, and be asked for again; one that is pruned counts as bad
                    each.report(0.0 if high else WORST_LOSS, step=1)
                    study.tell(each, state=optuna.trial.TrialState.PRUNED)
    return list(trials.values())


def _suggested(asked: Any, name: str, values: list[Any] | Range) -> Any:
    if not isinstance(values, Range):
        # By its place: Optuna takes no lists for choices.
        return values[asked.suggest_categorical(name, list(range(len(values))))]
    suggest = asked.suggest_int if values.whole else asked.suggest_float
    return suggest(name, values.low, values.high, log=values.log)
