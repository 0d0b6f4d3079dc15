"""Values as a reader sees them: numbers with their units, and names that may hold anything."""

import json
import math
from collections.abc import Mapping
from typing import Any

from stages.progress import counted, in_percent, visible

NONE = "–"
_SCALED = {True: "", False: "not standardised"}
_POOLED = {"flatten": "flattened features", "avg": "averaged features", "max": "max-pooled features"}
_ADDED = {"mixup": "mixup", "l2": "L2", "max_norm": "max-norm"}


def short(text: str, length: int) -> str:
    """The visible text, cut to ``length`` characters."""
    text = visible(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(share: float | None) -> str:
    """As ``in_percent``; a dash for none."""
    return NONE if share is None else in_percent(share)


def points(share: float) -> str:
    """A difference of shares in percentage points: ``0.021`` → ``2.1``, ``-0.004`` → ``−0.4``."""
    # Added to 0, that of minus zero is plain.
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """``0.909, 0.953`` → ``90.9–95.3%``."""
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; a dash for none, and for one that is not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """``3.21`` → ``3.2 s``; ``200`` → ``3 min 20 s``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def p_value(p: float) -> str:
    """``0.051`` → ``0.051``; two digits from 0.1 on, where nobody asks on which side of a level it is."""
    return "< 0.001" if p < 0.001 else f"{p:.{3 if p < 0.1 else 2}f}"


def setting(value: Any) -> str:
    """The value of a parameter: three digits of a number, a list as it is written in TOML, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def settings(result: Mapping[str, Any], layers: bool = False) -> str:
    """A head's settings in one line, the ones that tell heads apart; with the ``layers`` it is trained on where they do."""
    spec = result.get("spec", {})
    if result["kind"] == "ensemble":
        names = [each["head"] for each in result["heads"]]
        of = (
            f"the {len(names)} best trials of {spec['sweep']}"
            if "sweep" in spec
            else f"{', '.join(names[:-1])} and {names[-1]}"
        )
        return f"mean of {of}" + (" · weights by validation" if spec["weights"] == "validation" else "")
    if result["kind"] == "sklearn":
        params = ", ".join(f"{name}={value!r}" for name, value in spec.get("params", {}).items())
        words = [f"{spec.get('estimator', 'scikit-learn')}({params})", _SCALED[spec.get("scale", True)]]
    else:
        words = [
            _architecture(result),
            f"dropout {spec['dropout']:g}" if spec.get("dropout") else "",
            f"{spec.get('optimizer', '')} {spec.get('learning_rate', 0):g}",
            "batch norm" if spec.get("batch_norm") else "",
            f"focal loss, γ {spec['focal_gamma']:g}" if spec.get("loss") == "focal" else "",
            *(f"{words} {spec[name]:g}" for name, words in _ADDED.items() if spec.get(name)),
            f"warm-up of {spec['warmup']:g} epochs" if spec.get("warmup") else "",
            "cosine decay" if spec.get("cosine") else "",
            "epoch by accuracy" if spec.get("monitor") == "accuracy" else "",
        ]
    features = _POOLED.get(spec.get("pool"), "")
    if layers:
        features = f"{features or 'features'} of {' + '.join(result['layers'])}"
    words += [features, "with augmented views" if spec.get("views") else "", "refitted" if spec.get("refit") else ""]
    return " · ".join(word for word in words if word)


def _architecture(result: Mapping[str, Any]) -> str:
    """What a head that is trained in epochs is made of."""
    spec, kind = result.get("spec", {}), result["kind"]
    units = spec.get("units", [])
    hidden = f"{' → '.join(map(str, units))} units" if units else "no hidden layer"
    if kind == "keras":
        return f"{spec['build']}, {counted(result['parameters'], 'parameter')}"
    if kind == "finetune":
        return f"{spec['head']} and the base from {result['tuned']['from']}"
    if kind == "end_to_end":
        base = (
            "frozen"
            if spec["from"] is None
            else f"from {spec['from']}"
            if isinstance(spec["from"], str)
            else f"last {counted(spec['from'], 'block')}"
        )
        return f"base {base}, {hidden}"
    if kind == "cnn":
        return f"convolutions of {' → '.join(map(str, spec['filters']))} filters, {hidden}"
    return hidden
