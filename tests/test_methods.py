"""The report's table of methods: from scratch, frozen, with views, fine-tuned, end to end, ensembles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import make_data, page

from stages.extract.cost import CostSpec
from stages.report.data import HeadSummary, ReportData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    made = make_data(tmp_path_factory.mktemp("methods"), ("train", "validation", "test", "train", "test"))
    base = replace(made.bases[0], rows=90, seconds=9.0, view_rows=200, view_seconds=20.0)
    return replace(made, bases=[base], heads=[timed(head, 2.0) for head in made.heads])


def timed(head: HeadSummary, seconds: float) -> HeadSummary:
    return replace(head, result=head.result | {"seconds": seconds})


# What specs of these kinds have beside those of a baseline, as far as the page tells of it.
SPECS: dict[str, dict[str, Any]] = {
    "cnn": {"filters": [4, 8], "units": [8]},
    "finetune": {"head": "logreg", "from": 1},
    "end_to_end": {"units": [8], "from": None},
}


def as_kind(head: HeadSummary, name: str, kind: str, seconds: float, views: bool = False, **told: Any) -> HeadSummary:
    """The head as one of another kind would be told of."""
    spec = {**head.result["spec"], "kind": kind, "views": views, **SPECS.get(kind, {})}
    return replace(
        head, name=name, result={**head.result, "head": name, "kind": kind, "spec": spec, "seconds": seconds, **told}
    )


def rows(data: ReportData, path: Path) -> str:
    text = page(data, path).text
    start = text.index("What each method gained and cost")
    return text[start : text.index("Can the probabilities be believed?", start)]


def test_a_single_method_has_no_table(data: ReportData, tmp_path: Path) -> None:
    assert "What each method" not in page(data, tmp_path / "i.html").text


def test_each_method_has_its_best_head_with_seconds_images_and_cost(data: ReportData, tmp_path: Path) -> None:
    logreg, stump, ridge = data.heads
    heads = [
        *data.heads,
        as_kind(logreg, "viewed", "sklearn", 4.0, views=True),
        as_kind(stump, "scratch", "cnn", 60.0, images_read=2700, base="", layers=[]),
        as_kind(
            ridge,
            "tuned",
            "finetune",
            30.0,
            images_read=0,
            tuned={"from": "block5_conv1"},
            needs={"logreg": {"key": "k", "predictions": "p"}},
        ),
        as_kind(ridge, "whole", "end_to_end", 90.0, images_read=1800),
    ]
    found = rows(replace(data, heads=heads, cost=CostSpec(per_hour=3600)), tmp_path / "i.html")

    def score(head: HeadSummary) -> str:
        words = []
        for split in ("validation", "test"):
            metrics = head.result["metrics"][split]
            low, high = metrics["accuracy_interval"]
            words.append(f"{100 * metrics['accuracy']:.1f}% ({100 * low:.1f}–{100 * high:.1f}%)")
        return " ".join(words)

    best = min(
        data.heads,
        key=lambda h: (-h.result["metrics"]["validation"]["accuracy"], h.result["metrics"]["validation"]["log_loss"]),
    )
    assert f"from scratch scratch {score(stump)} 60 s 2,700 – $60.00" in found
    assert f"frozen {best.name} of 3 heads {score(best)} 2.0 s 0 90 images 9.0 s $11.00" in found
    assert f"frozen + views viewed {score(logreg)} 4.0 s 0 290 images 29 s $33.00" in found
    # With the seconds of the head that it began with.
    assert f"fine-tuned from the cache tuned {score(ridge)} 32 s 0 90 images 9.0 s $41.00" in found
    assert f"end to end whole {score(ridge)} 90 s 1,800 – $90.00" in found
    assert [found.index(name) for name in ("from scratch", "frozen + views", "fine-tuned", "end to end")] == sorted(
        found.index(name) for name in ("from scratch", "frozen + views", "fine-tuned", "end to end")
    )


def test_an_ensemble_counts_its_heads_and_each_extraction_once(data: ReportData, tmp_path: Path) -> None:
    told = [
        {"head": head.name, **{name: head.result[name] for name in ("kind", "base", "layers", "spec", "seconds")}}
        for head in data.heads[:2]
    ]
    spec = {"kind": "ensemble", "heads": [each["head"] for each in told], "weights": "equal"}
    mix = as_kind(
        data.heads[0], "mix", "ensemble", 0.5, heads=told, base="main", layers=[], needs={"logreg": {}, "stump": {}}
    )
    mix = replace(mix, result=mix.result | {"spec": spec})
    found = rows(replace(data, heads=[*data.heads, mix]), tmp_path / "i.html")
    assert "ensemble mix " in found and " 4.5 s 0 90 images 9.0 s" in found and "Money" not in found


def test_the_table_states_the_score_that_ranks_and_a_dash_for_what_is_not_known(
    data: ReportData, tmp_path: Path
) -> None:
    unknown = replace(data.bases[0], seconds=0.0)
    heads = [*data.heads, as_kind(data.heads[0], "viewed", "sklearn", 4.0, views=True)]
    both = replace(data, bases=[unknown], heads=heads, metric="log_loss", cost=CostSpec(per_hour=1))
    found = rows(both, tmp_path / "i.html")
    loss = data.heads[0].result["metrics"]["validation"]["log_loss"]
    assert "Log loss" in found and f"viewed {loss:.3f}" in found and "290 images – –" in found
