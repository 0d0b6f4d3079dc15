"""``headstart bases``: which bases can be had, how large they are, what they cost, under which licence, and whether they are here."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cache.errors import BaseError, ConfigError
from pipeline.config.load import base_of, load_config
from stages.bases.available import FETCHED, where
from stages.bases.brought import completed
from stages.bases.catalogue import BASES
from stages.bases.figures import FIGURES, Figures
from stages.bases.licences import licence_of
from stages.bases.spec import FILE, HUB, BaseSpec
from stages.bases.weights import Weights
from stages.fields import did_you_mean
from stages.progress import Progress

EXPLAINED = (
    "Input: what the weights were trained at, or what [base] says; other sizes work. Features: of the last layer at that size.",
    "kB/image: of these features as float16, uncompressed. GFLOPs: of one image, multiplications and additions both counted.",
    "See also: headstart layers NAME.",
)


def base_lines(names: Sequence[str], path: Path, timed: bool, progress: Progress) -> Iterator[str]:
    """A line for each base that is named; where none is, for those of the configuration and all of ``keras.applications``.

    With ``timed``, those that are named, or else those of the configuration, are built and timed on this machine. What cannot be known
    of a preset that is not fetched yet, or of a configured base that cannot be built, is a dash, with the reason below.
    Raises ConfigError for a named base that there is not, and BaseError for one that cannot be built.
    """
    kept = path.parent / "artifacts" / "weights"
    specs: dict[str, BaseSpec] = {}
    if path.exists():
        config = load_config(path)
        kept = config.cache.dir / "weights"
        specs = {} if names else config.bases
    for name in names:
        if name not in BASES and not name.startswith((FILE, HUB)):
            raise ConfigError(
                f'no base {name!r}{did_you_mean(name, BASES)}; `headstart bases` lists them; others begin with "file:" or "hub:"'
            )
        specs[name] = base_of(name, FIGURES[name].size if name in FIGURES else None, random=False)
    if timed and not specs:
        raise ConfigError("--time: expected bases to time, found none; name some, or a configuration with --config")
    reasons: list[str] = []
    rows = []
    for name, spec in specs.items():
        try:
            rows.append(_row(name, spec, kept, timed, progress))
        except BaseError as error:
            awaited = bool(spec.hub) and where(spec, kept) == FETCHED
            if names and not awaited:
                raise
            why = (
                "not fetched yet; `make features` fetches it, and its features are known then"
                if awaited
                else str(error)
            )
            reasons.append(f"{_label(name, spec)}: {why}")
            rows.append(_unknown(name, spec, kept))
    if not names and not timed:
        rows += [_of_table(name, kept) for name in FIGURES]
    header = (
        "base",
        "input",
        "parameters",
        "features",
        "kB/image",
        "GFLOPs",
        "images/s",
        "weights",
        "licence of the weights",
    )
    yield from _table([header, *rows], 6 if not timed else None)
    yield from reasons
    yield from EXPLAINED


def _row(name: str, spec: BaseSpec, kept: Path, timed: bool, progress: Progress) -> tuple[str, ...]:
    """A base that is named or configured: built where no table has its figures, or where it is to be timed."""
    spec = completed(spec, kept)
    known = FIGURES.get(spec.name)
    rate = ""
    if timed:
        from stages.bases.timing import images_per_second

        progress.say(f"timing {spec.name}")
        rate = f"{images_per_second(spec, Weights(spec, kept)):,.1f}"
    if known is None or known.size != spec.input_size or spec.include_top:
        from stages.bases.timing import measured

        known = measured(spec, Weights(spec, kept))
    return (_label(name, spec), *_cells(known), rate, where(spec, kept), _licence(spec, kept))


def _unknown(name: str, spec: BaseSpec, kept: Path) -> tuple[str, ...]:
    """A base that cannot be built here."""
    known = FIGURES.get(spec.name)
    size = "×".join(map(str, spec.input_size)) if known or "input_size" in spec.model_fields_set else "–"
    parameters = f"{known.parameters / 1e6:,.1f} M" if known and not spec.include_top else "–"
    return (_label(name, spec), size, parameters, "–", "–", "–", "–", where(spec, kept), _licence(spec, kept))


def _label(name: str, spec: BaseSpec) -> str:
    return spec.name if name in (spec.name, "base") else f"{name}: {spec.name}"


def _of_table(name: str, kept: Path) -> tuple[str, ...]:
    spec = BaseSpec(name=name)
    return (name, *_cells(FIGURES[name]), "", where(spec, kept), _licence(spec, kept))


def _licence(spec: BaseSpec, kept: Path) -> str:
    """Of the weights that a base has by default, and of those that are here in a package in their place."""
    found = "{} ({})".format(*licence_of(spec, kept))
    if spec.weights == "imagenet" and "packaged" in where(spec, kept):
        found += "; packaged: {} ({})".format(*licence_of(spec.model_copy(update={"weights": "packaged"}), kept))
    return found


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        "×".join(map(str, figures.size)),
        f"{figures.parameters / 1e6:,.1f} M",
        "×".join(map(str, figures.features)),
        f"{figures.kilobytes:,.1f}",
        "–" if figures.gflops is None else f"{figures.gflops:.3g}",
    )


def _table(rows: Sequence[tuple[str, ...]], without: int | None) -> Iterator[str]:
    rows = [tuple(cell for i, cell in enumerate(row) if i != without) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = range(1, len(widths) - 2)
    for row in rows:
        cells = [
            f"{cell:>{w}}" if i in numbers else f"{cell:{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
