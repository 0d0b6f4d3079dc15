"""Trials of heads that are fine-tuned: each is trained as such a head is, with each seed, on train, and scored on validation."""

import shutil
from dataclasses import replace

from cache.errors import DivergedError, HeadstartError
from stages.heads.dataset import Dataset
from stages.heads.task import HeadTask
from stages.heads.tuning import finetuned_head
from stages.progress import Progress
from stages.sweeps.ledger import Record
from stages.sweeps.measure import Measure
from stages.sweeps.scoring import Done
from stages.sweeps.trials import Trial
from stages.training.outcomes import Outcomes


def score_tuned(
    trial: Trial, task: HeadTask, data: Dataset, measure: Measure, repeats: int, progress: Progress
) -> Done:
    """Train a trial with each seed, as the head of a ``task`` whose folder keeps how far it has come. One that a kill stopped goes on."""
    (rows,) = measure.scored
    by_seed, seconds, folder = [], 0.0, task.folder / trial.key
    for number in range(repeats):
        spec = trial.spec.model_copy(update={"seed": trial.spec.seed + number, "refit": False})
        seeded = replace(task, spec=spec, key=trial.key, folder=folder / str(number))
        try:
            found = finetuned_head(seeded, data, progress)
        except HeadstartError as error:
            # One that diverged was trained, and would diverge again.
            return Record(trial.key, (), isinstance(error, DivergedError), seconds, str(error), trial.begun), []
        by_seed.append(Outcomes.of(data.y[rows], found.logs[rows], measure.whole))
        seconds += found.seconds
    shutil.rmtree(folder, ignore_errors=True)
    score = measure.with_interval(measure.score(by_seed), by_seed)
    return Record(trial.key, (score,), True, round(seconds, 3), begun=trial.begun), by_seed
