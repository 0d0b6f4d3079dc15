"""``[cost]``: money in the plan and in the report, where accuracy stands against what an image costs."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CONFIG, Project, write_photos
from pages import Seen
from reports import make_data, page

from cache.errors import ConfigError
from pipeline.config.load import load_config
from stages.extract.cost import CostSpec
from stages.extract.plan import Measured, plan_lines
from stages.report.data import BaseSummary, HeadSummary, ReportData
from stages.report.figures import Point, cost_figure


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        (2.5, "$", "$2.50"), (1234.5, "€", "€1,234.50"), (0.1, "CHF", "0.10 CHF"), (0.0423, "$", "$0.042"), (0.00277, "kr", "0.0028 kr"),
        (0.0999, "$", "$0.100"), (0.0, "$", "$0.00"), (1e-12, "$", "$0.00000000"), (3, "US$", "US$3.00"),
    ],
)  # fmt: skip
def test_money_in_words(amount: float, currency: str, words: str) -> None:
    assert CostSpec(per_hour=1, currency=currency).in_words(amount) == words


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"\[cost\] per_hour: expected a value, found none; add it"),
        ("per_hour = 0", r"\[cost\] per_hour: should be greater than 0, found 0"),
        ('per_hour = "2.5"', r"\[cost\] per_hour: expected a number, found '2.5'"),
        ("per_hour = inf", r"\[cost\] per_hour: expected a finite number, found inf"),
        ("per_hour = 1\ncurrency = 3", r"\[cost\] currency: expected a text, found 3"),
        ("per_hour = 1\ncurency = 'x'", r"\[cost\] curency: unknown field \(did you mean 'currency'\?\)"),
    ],
)  # fmt: skip
def test_errors_in_the_configuration(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(f'[data]\nroot = "photos"\n[cost]\n{table}\n')
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "c.toml")


def test_a_plan_states_money_where_it_is_known(tmp_path: Path) -> None:
    found = Measured(seconds=0.0288, bytes=8200, images=96, decoding=0.1)
    lines = plan_lines("vgg", found, 25_000, 0, tmp_path, CostSpec(per_hour=2.5, currency="€"))
    assert lines[1:3] == [
        "vgg: about 12 min at 34.7 images/s, as 96 timed images went",
        "vgg: about €0.50, at €2.50 an hour",
    ]
    assert lines[3].startswith("vgg: about 205.0 MB on disk (8.2 kB an image)")
    assert [line for line in plan_lines("vgg", found, 25_000, 0, tmp_path) if line not in lines] == []


# The page


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return make_data(tmp_path_factory.mktemp("costs"), ("train", "validation", "test", "train", "test"))


def on(head: HeadSummary, base: str, *layers: str) -> HeadSummary:
    result = {**head.result, "base": base, **({"layers": list(layers)} if layers else {})}
    return replace(head, name=f"{head.name}@{base}", result=result)


def two(data: ReportData) -> ReportData:
    bases = [
        replace(data.bases[0], name="vgg", rows=1000, seconds=21.0, bytes_on_disk=12_000_000),
        replace(data.bases[0], name="mo$bile", rows=500, seconds=2.0, bytes_on_disk=2_500_000, devices=["gpu"]),
    ]
    heads = [on(data.heads[0], "vgg"), on(data.heads[1], "mo$bile"), on(data.heads[2], "vgg")]
    return replace(data, bases=bases, heads=heads)


def table_of(seen: Seen) -> str:
    return seen.text[seen.text.index("Accuracy against cost") :].partition("Written by headstart")[0]


def best_of(data: ReportData, base: str) -> str:
    """The row of the page up to the costs."""
    on_it = [head for head in data.heads if head.result["base"] == base]
    best = max(on_it, key=lambda head: head.result["metrics"]["validation"]["accuracy"])
    words = [base, best.name.partition("@")[0]]
    for split in ("validation", "test"):
        metrics = best.result["metrics"][split]
        low, high = metrics["accuracy_interval"]
        words += [f"{100 * metrics['accuracy']:.1f}%", f"{100 * low:.1f}–{100 * high:.1f}%"]
    return " ".join(words)


def test_bases_stand_beside_each_other_without_money(data: ReportData, tmp_path: Path) -> None:
    both = two(data)
    seen = page(both, tmp_path / "i.html")
    found = table_of(seen)
    assert f"{best_of(both, 'vgg')} 21 ms 12.0 kB" in found and f"{best_of(both, 'mo$bile')} 4 ms 5.0 kB" in found
    assert "different devices (cpu, gpu), so their times cannot be compared" in found and "Money" not in found
    (label,) = [
        attrs["aria-label"] or ""
        for tag, attrs in seen.tags
        if tag == "svg" and "milliseconds" in (attrs["aria-label"] or "")
    ]
    assert re.search(r": vgg \d+\.\d% at 21 ms, mo\$bile \d+\.\d% at 4 ms$", label)
    assert "mo$bile" in found.partition("by milliseconds")[2]  # beside its point
    assert (
        seen.text.count("Best head of") + seen.text.count("The same head") == 1
    )  # not said in the other table as well


def test_engines_on_one_processor_are_compared(data: ReportData, tmp_path: Path) -> None:
    both = two(data)
    engines = (["CPU"], ["CPU (OpenVINO)"])
    bases = [replace(base, devices=devices) for base, devices in zip(both.bases, engines, strict=True)]
    assert "cannot be compared" not in table_of(page(replace(both, bases=bases), tmp_path / "i.html"))


def test_money_for_a_thousand_images(data: ReportData, tmp_path: Path) -> None:
    found = table_of(page(replace(two(data), cost=CostSpec(per_hour=3.6)), tmp_path / "i.html"))
    assert "Money is for 1,000 images, at $3.60 an hour" in found
    assert "21 ms 12.0 kB $0.021" in found and "4 ms 5.0 kB $0.0040" in found
    alone = replace(data, cost=CostSpec(per_hour=3.6, currency="CHF"), heads=[on(data.heads[0], "main")])
    seen = page(alone, tmp_path / "one.html")
    n, seconds = data.bases[0].rows, data.bases[0].seconds
    assert f"{1000 * seconds / n:.3g} ms {12_300 / n:.1f} kB 0.017 CHF" in table_of(seen)
    assert not [1 for tag, attrs in seen.tags if tag == "svg" and "milliseconds" in (attrs["aria-label"] or "")]


def test_without_a_cost_a_single_base_has_no_such_table(data: ReportData, tmp_path: Path) -> None:
    assert "Accuracy against cost" not in page(data, tmp_path / "i.html").text


def test_what_is_not_known_is_a_dash(data: ReportData, tmp_path: Path) -> None:
    old: BaseSummary = replace(two(data).bases[0], seconds=0.0)
    empty = replace(two(data).bases[1], rows=0, seconds=0.0, bytes_on_disk=0, devices=[])
    seen = page(replace(two(data), bases=[old, empty], cost=CostSpec(per_hour=1)), tmp_path / "i.html")
    found = table_of(seen)
    assert f"{best_of(two(data), 'vgg')} – 12.0 kB –" in found and f"{best_of(two(data), 'mo$bile')} – – –" in found
    assert "by milliseconds" not in found and "different devices" not in found


def test_layers_together_cost_one_pass_and_all_their_bytes(data: ReportData, tmp_path: Path) -> None:
    base = replace(data.bases[0], rows=1000, seconds=20.0, bytes_on_disk=8_000_000)
    bases = [replace(base, layer="block4_pool"), replace(base, bytes_on_disk=2_000_000)]
    heads = [on(data.heads[0], "main", "block4_pool", "block5_pool"), on(data.heads[1], "main", "block5_pool")]
    found = table_of(page(replace(data, bases=bases, heads=heads, cost=CostSpec(per_hour=1)), tmp_path / "i.html"))
    assert re.search(r"block4_pool \+ block5_pool logreg .*?% 20 ms 10.0 kB \$0.0056", found)


def test_many_bases_have_numbers_in_the_figure(data: ReportData, tmp_path: Path) -> None:
    bases = [replace(data.bases[0], name=f"base{i}", seconds=1.0 + i) for i in range(7)]
    heads = [on(data.heads[i % 3], f"base{i}") for i in range(7)]
    found = table_of(page(replace(data, bases=bases, heads=heads), tmp_path / "i.html"))
    assert "# Base" in found and " 7 base6 " in found and "base6" not in found.partition("by milliseconds")[2]


@pytest.mark.parametrize("costs", [(8.1, 8.2), (0.01, 3000), (5, 5), (1, 1000)])
def test_the_figure_has_ticks_whatever_the_costs(costs: tuple[float, float]) -> None:
    svg = cost_figure([Point("a", costs[0], 0.9, 0.8, 0.95), Point("b", costs[1], 1.0, 0.9, 1.0)])
    assert 1 <= len(re.findall(r">[\d.e+-]+ ms<", svg)) <= 6


# A project


def test_a_cost_makes_the_report_stale_and_nothing_else(project: Project) -> None:
    project.config.write_text(project.config.read_text() + "\n[cost]\nper_hour = 2.5\n")
    stale = [line for line in project.headstart("status").out.splitlines() if "stale" in line]
    assert len(stale) == 1 and stale[0].endswith("stale: the cost of an hour changed"), stale
    outcome = project.make("report")
    assert (outcome.extracted, outcome.trained, outcome.reported) == (0, [], True), outcome.out
    assert "at $2.50 an hour" in (project.artifacts / "report" / "index.html").read_text()
    assert project.make("-q", "report").code == 0
    project.edit("per_hour = 2.5", "per_hour = 5")
    assert "the cost of an hour changed" in project.headstart("status").out


def test_the_plan_of_a_project(empty: Callable[[str], Project]) -> None:
    project = empty(CONFIG + "\n[cost]\nper_hour = 2.5\n")
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.headstart("features", "--dry-run")
    assert outcome.code == 0 and re.search(r"^base: about \$0\.\d+, at \$2\.50 an hour$", outcome.out, re.MULTILINE), (
        outcome.out
    )
