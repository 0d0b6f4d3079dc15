"""What training a head imports, reads and compiles, done before it is asked for."""

from stages.bases.backend import load_keras
from stages.heads.dataset import Dataset
from stages.heads.estimators import classifier
from stages.heads.spec import EnsembleSpec, SklearnSpec
from stages.heads.task import HeadTask
from stages.imports import load_skops
from stages.training.member import Member
from stages.training.spec import DenseSpec
from stages.training.together import Training


def warm_up_head(task: HeadTask, data: Dataset) -> None:
    """Do so for heads like that of ``task``; of a dense head, which is compiled, an epoch is trained and thrown away."""
    spec = task.spec
    if isinstance(spec, SklearnSpec):
        load_skops()
        classifier(spec)
        data.X(spec.pool, task.layers, spec.views)
    elif isinstance(spec, DenseSpec):
        source = data.source(spec.pool, task.layers, spec.views)
        member = Member(spec, data.rows("train"), data.rows("validation"))
        if source.whole:
            Training([member], source, len(data.classes), keep_weights=False).advance(1)
    elif not isinstance(spec, EnsembleSpec):
        load_keras()
