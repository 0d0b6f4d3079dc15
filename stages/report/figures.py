"""The figures: curves of a head that is trained in epochs, the learning curve, accuracy against cost, and the confusion matrix of many
classes as an image."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from stages.heads.calibration import Bin
from stages.heads.metrics import smooth
from stages.report.svg import STAND_IN, inline_svg
from stages.report.text import decimal, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING = 0.8
Limits = tuple[float, float]
# Up to so many classes have all their names beside the matrix; of more, about so many, as all would overlap.
NAMED_CLASSES, SOME_NAMES = 60, 24
# Mid tones, which stand out on white and on black; the share of the row is their opacity.
_RIGHT, _WRONG = (0.05, 0.58, 0.53), (0.88, 0.11, 0.28)


def curve(
    history: dict[str, list[float]], measure: str, best_epoch: int | None, name: str, label: str, limits: Limits | None
) -> Markup:
    """SVG of ``loss`` or ``accuracy`` by epoch: train and validation, raw (faint) and smoothed (strong)."""
    figure, axes = _panel()
    epochs = history["epoch"]
    for column, colour in ((measure, "train"), (f"val_{measure}", "validation")):
        points = [(x, y) for x, y in zip(epochs, history[column], strict=True) if math.isfinite(y)]
        if points:
            _line(axes, points, STAND_IN[colour])
    if limits is not None:
        axes.set_ylim(*limits)
        axes.set_yticks(_ticks(limits[0]))
    if measure == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    if best_epoch is not None:
        _mark(axes, best_epoch, history[f"val_{measure}"], min(epochs), max(epochs))
    return inline_svg(figure, name, f"{label}, {_in_words(history, measure, best_epoch)}")


def learning_curve(
    points: Sequence[dict[str, Any]], law: dict[str, float] | None, doubled: dict[str, Any] | None
) -> Markup:
    """SVG of accuracy on validation by the number of training images, with intervals; the law through it, up to twice the images."""
    figure, axes = _panel("training images", "accuracy on validation")
    axes.set_xscale("log", base=2)
    images = [point["images"] for point in points]
    accuracy = [point["accuracy"] for point in points]
    colour = STAND_IN["validation"]
    if law and doubled:
        whole = law["whole"]
        x = [images[0] * (2 * whole / images[0]) ** (i / 60) for i in range(61)]
        y = [1 - law["a"] - law["b"] * (n / whole) ** -law["c"] for n in x]
        axes.plot(x, y, color=STAND_IN["muted"], linewidth=1.4, linestyle=(0, (4, 3)))
        _with_interval(axes, [doubled], [doubled["images"]], STAND_IN["muted"], hollow=True)
    _with_interval(axes, points, images, colour, hollow=False)
    # Two shares of few images may be as many: one class needs one image at least.
    ticks = list(dict.fromkeys([*images, *([doubled["images"]] if doubled else [])]))
    numbered = _apart(ticks)
    axes.set_xticks(ticks, [f"{n:,}" if n in numbered else "" for n in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
    last = f", and {percent(doubled['accuracy'])} expected for {doubled['images']:,}" if doubled else ""
    told = ", ".join(f"{percent(a)} for {n:,}" for a, n in zip(accuracy, images, strict=True))
    return inline_svg(figure, "learning", f"accuracy on validation by the number of training images: {told}{last}")


def _apart(ticks: Sequence[int]) -> list[int]:
    """Those of ascending ticks, on a logarithmic scale, whose numbers do not run into one another; the last has one in any case."""
    room = 0.08 * math.log(ticks[-1] / ticks[0])
    kept = [ticks[-1]]
    for n in reversed(ticks[:-1]):
        if math.log(kept[-1] / n) >= room:
            kept.append(n)
    return kept


class Point(NamedTuple):
    """A base in the figure of costs: its name, milliseconds for an image, and the accuracy of its best head with its interval."""

    name: str
    cost: float
    accuracy: float
    low: float
    high: float


def cost_figure(points: Sequence[Point]) -> Markup:
    """SVG of accuracy on validation by milliseconds for an image, on a logarithmic scale, with intervals."""
    figure, axes = _panel()
    axes.set_xscale("log")
    for point in points:
        _with_interval(axes, [point._asdict()], [point.cost], STAND_IN["validation"], hollow=False)
        # A dollar sign in a name is a dollar sign, not mathematics.
        axes.annotate(
            short(point.name, 24), (point.cost, point.accuracy), (7, 0), textcoords="offset points", va="center",
            color=STAND_IN["text"], fontsize=10.5, parse_math=False,
        )  # fmt: skip
    least, most = min(point.cost for point in points), max(point.cost for point in points)
    # Room for the names on the right.
    axes.set_xlim(least / 1.3, most * max(1.6, (most / least) ** 0.5))
    ticks = _round_costs(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g} ms" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    told = ", ".join(f"{point.name} {percent(point.accuracy)} at {point.cost:.3g} ms" for point in points)
    return inline_svg(figure, "costs", f"accuracy on validation by milliseconds for an image: {told}")


def _round_costs(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic scale, five at most; where none are within, its middle."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= 5:
            break
    return ticks[:: -(-len(ticks) // 5)] if ticks else [float(f"{math.sqrt(low * high):.2g}")]


def _with_interval(
    axes: "Axes", points: Sequence[dict[str, Any]], x: Sequence[float], colour: str, hollow: bool
) -> None:
    middle = [point["accuracy"] for point in points]
    below = [point["accuracy"] - point["low"] for point in points]
    above = [point["high"] - point["accuracy"] for point in points]
    face = "none" if hollow else colour
    axes.errorbar(
        x, middle, [below, above], color=colour, fmt="o", markersize=5.5, markerfacecolor=face, elinewidth=1.6
    )


def _in_words(history: dict[str, list[float]], measure: str, best_epoch: int | None) -> str:
    epoch = best_epoch or len(history["epoch"])
    show = percent if measure == "accuracy" else decimal
    values = (history[column][min(epoch, len(history[column])) - 1] for column in (measure, f"val_{measure}"))
    train, validation = (show(value) if math.isfinite(value) else "not finite" for value in values)
    values_there = f"at epoch {epoch}: train {train}, validation {validation}"
    return f"{measure} by epoch, {len(history['epoch'])} epochs; {values_there}"


def _panel(below: str = "", beside: str = "") -> tuple["Figure", "Axes"]:
    """A figure and its axes, with titles where it is not said above it what they show."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.4, 2.9))
    axes = figure.add_axes((0.145, 0.2, 0.835, 0.76) if below else (0.115, 0.115, 0.865, 0.78))
    axes.set_xlabel(below, color=STAND_IN["muted"], fontsize=10.5)
    axes.set_ylabel(beside, color=STAND_IN["muted"], fontsize=10.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(STAND_IN["rule"])
    axes.grid(axis="y", color=STAND_IN["rule"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelcolor=STAND_IN["muted"], labelsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _line(axes: "Axes", points: Sequence[tuple[float, float]], colour: str) -> None:
    x, y = [point[0] for point in points], [point[1] for point in points]
    marker = "o" if len(points) == 1 else None  # a line of one point is not seen
    axes.plot(x, y, color=colour, alpha=0.45, linewidth=1)
    axes.plot(x, smooth(y, SMOOTHING), color=colour, linewidth=2.2, marker=marker, solid_capstyle="round")


def _mark(axes: "Axes", epoch: int, values: Sequence[float], first: float, last: float) -> None:
    """The epoch whose weights were kept, with its validation value as it was measured, not smoothed."""
    axes.axvline(epoch, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (2, 3)))
    if epoch <= len(values) and math.isfinite(values[epoch - 1]):
        axes.plot([epoch], [values[epoch - 1]], "o", color=STAND_IN["validation"], markersize=5.5)
    side = (epoch - first) / max(last - first, 1)
    align = "left" if side < 0.12 else "right" if side > 0.88 else "center"
    above = axes.get_xaxis_transform()
    axes.text(epoch, 1.03, f"epoch {epoch}", transform=above, ha=align, color=STAND_IN["text"], fontsize=10.5)


def reliability_figure(bins: Sequence[Bin], intervals: Sequence[Limits], label: str, split: str) -> Markup:
    """SVG of accuracy by confidence: a point for each bin with its 95% interval, and the line of true probabilities."""
    figure, axes = _panel("confidence: probability of the predicted class", "accuracy")
    colour = STAND_IN[split]
    low = math.floor(10 * min([0.9, *(b.confidence for b in bins), *(low for low, _ in intervals)])) / 10
    axes.plot([low, 1], [low, 1], color=STAND_IN["muted"], linewidth=1, linestyle=(0, (2, 3)))
    for each, (bottom, top) in zip(bins, intervals, strict=True):
        axes.plot([each.confidence, each.confidence], [bottom, top], color=colour, alpha=0.45, linewidth=2)
        axes.plot([each.confidence], [each.accuracy], "o", color=colour, markersize=5.5, clip_on=False)
    for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_ticks(_ticks(low))
        limits(low - 0.01, 1.01)
        axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    return inline_svg(figure, "reliability", label)


def abstention_figure(counts: Sequence[Sequence[int]], n: int, label: str, split: str) -> Markup:
    """SVG of accuracy by the share of ``n`` images that is answered; ``counts`` are (answered, right) at each threshold."""
    figure, axes = _panel("share of the images that is answered", "accuracy of the answers")
    points = sorted((answered / n, right / answered) for answered, right in counts if answered)
    colour = STAND_IN[split]
    x, y = zip(*points, strict=True) if points else ((), ())
    axes.plot(x, y, color=colour, linewidth=2.2, drawstyle="steps-post", clip_on=False)
    axes.xaxis.set_ticks(_ticks(0.0))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(min(0.99, math.floor(20 * min([1.0, *y])) / 20), 1.002)
    return inline_svg(figure, "abstention", label)


def accuracy_limits(histories: Sequence[dict[str, list[float]]]) -> Limits:
    """One range of accuracy for all heads, so that their panels can be compared."""
    values = [value for history in histories for name in ("accuracy", "val_accuracy") for value in history[name]]
    low = max(0.0, math.floor(10 * min(filter(math.isfinite, values), default=0.0)) / 10)
    return min(low, 0.9), 1.01


def _ticks(low: float) -> list[float]:
    """Round accuracies from 1 down to ``low``, six at most."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if 1 - low <= 5.001 * step)
    return [1 - i * step for i in range(6) if 1 - i * step >= low - 1e-9]


def confusion_image(counts: Counter[tuple[str, str]], classes: Sequence[str], label: str) -> Markup:
    """SVG of a confusion matrix: row = true, column = predicted, opacity = share of the row."""
    import numpy as np
    from matplotlib.figure import Figure

    n = len(classes)
    ids = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((n, n))
    for (true, predicted), images in counts.items():
        matrix[ids[true], ids[predicted]] = images
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((n, n, 4))
    pixels[..., :3] = np.where(np.eye(n, dtype=bool)[..., None], _RIGHT, _WRONG)
    # The root lets a rare confusion be seen; what never happened stays blank.
    pixels[..., 3] = np.where(share > 0, 0.12 + 0.88 * np.sqrt(share), 0)
    figure = Figure(figsize=(7.6, 7.6))
    axes = figure.add_axes((0.22, 0.02, 0.76, 0.76))
    axes.imshow(pixels, interpolation="none", aspect="equal")
    axes.spines[:].set_color(STAND_IN["rule"])
    axes.tick_params(length=0, labelcolor=STAND_IN["muted"], labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted", color=STAND_IN["text"])
    axes.set_ylabel("true", color=STAND_IN["text"])
    _name_ticks(axes, classes)
    return inline_svg(figure, "confusion", label, crop="tight")


def _name_ticks(axes: "Axes", classes: Sequence[str]) -> None:
    """Names of all classes, or of every so many where all would be too small to read."""
    step = 1 if len(classes) <= NAMED_CLASSES else -(-len(classes) // SOME_NAMES)
    places = range(0, len(classes), step)
    size = max(5.0, min(9.5, 300 / len(places)))
    # A dollar sign in a class name is a dollar sign, not mathematics.
    options: dict[str, Any] = {"fontsize": size, "parse_math": False}
    labels = [short(classes[i], 18) for i in places]
    axes.set_xticks(places, labels, rotation=90, **options)
    axes.set_yticks(places, labels, **options)
