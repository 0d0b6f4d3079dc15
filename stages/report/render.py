"""Write the report: one HTML page that needs no network, no other file and no script."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from cache.files import write_text
from stages.heads.results import trials_compared
from stages.heads.scored import in_words
from stages.report.audit import describe_audit
from stages.report.best import describe_best
from stages.report.board import Row, leaderboard
from stages.report.costs import describe_costs
from stages.report.data import ReportData
from stages.report.environment import environment
from stages.report.methods import describe_methods
from stages.report.page import embed_parts
from stages.report.pairs import compare_with_best
from stages.report.pictures import Draw
from stages.report.rescored import as_scored_now
from stages.report.sections import describe_bases, describe_curves, describe_data, joint_heads, notices
from stages.report.sweeps import describe_sweep, too_good
from stages.report.trust import calibrations


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to ``path``, atomically. The same data gives the same bytes.

    Raises HeadError for a head whose ``predictions.csv`` or ``history.csv`` cannot be read.
    """
    write_text(path, environment().get_template("page.html.j2").render(_context(data)) + "\n")


def _context(data: ReportData) -> dict[str, Any]:
    chosen = {result["sweep"]: too_good(result) for result in data.sweeps}
    trials = {result["sweep"]: trials_compared(result) for result in data.sweeps}
    heads = [as_scored_now(head, data.manifest.group_of) for head in data.heads]
    board = leaderboard(heads, data.metric, chosen, trials)
    split = "test" if board.best is None or board.best.test else "validation"
    bases, joint = describe_bases(data.bases, board), joint_heads(data.bases, board)
    return {
        "title": data.title,
        "parts": Markup(embed_parts(data.parts)),
        "board": board,
        "best": describe_best(board, data.manifest, data.root, _draw(data, board.best)) if board.best else None,
        "data": describe_data(data, split),
        "bases": bases,
        "costs": describe_costs(bases, joint, board, data.cost),
        "methods": describe_methods(board, data.bases, data.metric, data.cost),
        "cost_per_hour": data.cost.in_words(data.cost.per_hour) if data.cost else None,
        "pairs": compare_with_best(board, data.manifest.group_of),
        "calibrations": calibrations(board),
        "sweeps": [describe_sweep(result) for result in data.sweeps],
        "joint_heads": joint,
        "curves": describe_curves(board.rows),
        "notices": notices(data),
        "audit": describe_audit(data.audit, data.manifest, data.root) if data.audit else None,
        "images_here": data.root is not None,
        "metric": in_words(data.metric),
        "looks": data.looks,
    }


def _draw(data: ReportData, best: Row) -> Draw | None:
    maps = data.maps
    return (lambda mistake: maps(best.head.name, mistake.path, mistake.predicted)) if maps else None
