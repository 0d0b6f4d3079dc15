"""The tables of the documentation are whole: fields with their defaults, fields of results, commands, options, targets, extras."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project
from documentation import documented_project, first_cells, tables

from stages.bases.spec import BaseSpec
from stages.data.spec import DataSpec
from stages.data.views import ViewsSpec
from stages.extract.cost import CostSpec
from stages.extract.spec import CacheSpec
from stages.fields import Spec
from stages.heads.spec import EnsembleSpec, KerasSpec, SklearnSpec
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec
from stages.report.spec import ReportSpec
from stages.sweeps.spec import SweepSpec
from stages.training.spec import CommonSpec, DenseSpec, TrainedSpec

TUNED = "Fields of all these kinds"
EPOCHS, EVERY = "Fields of heads that are trained in epochs", "Fields of every head"
REQUIRED = {"root": "photos", "head": "x", "estimator": "SVC", "build": "a.py:b", "dir": "artifacts"}
FIELDS: list[tuple[type[Spec], str, list[str], dict[str, Any]]] = [
    (DataSpec, "docs/data.md", ["All fields of `[data]`"], {}),
    (BaseSpec, "docs/bases.md", ["All fields of `[base]` and `[bases.NAME]`"], {}),
    (ViewsSpec, "docs/views.md", ["All fields of `[views]`"], {}),
    (CacheSpec, "docs/cache.md", ["All fields of `[cache]`"], {}),
    (ReportSpec, "docs/numbers.md", ["All fields of `[report]`"], {}),
    (CostSpec, "docs/bases.md", ["All fields of `[cost]`"], {"per_hour": 2.5}),
    (SweepSpec, "docs/sweeps.md", ["All fields of `[sweeps.NAME]`"], {}),
    (DenseSpec, "docs/heads.md", [EVERY, EPOCHS, "Dense heads"], {"kind": "dense"}),
    (SklearnSpec, "docs/heads.md", [EVERY, "scikit-learn classifiers"], {"kind": "sklearn"}),
    (KerasSpec, "docs/heads.md", [EVERY, EPOCHS, "A head of your own"], {"kind": "keras"}),
    (EnsembleSpec, "docs/ensembles.md", ["All fields of an ensemble"], {"kind": "ensemble", "sweep": "x"}),
    (FinetuneSpec, "docs/finetuning.md", ["All fields of fine-tuning", TUNED], {"kind": "finetune"}),
    (EndToEndSpec, "docs/finetuning.md", ["All fields of `end_to_end`", TUNED], {"kind": "end_to_end"}),
    (CnnSpec, "docs/finetuning.md", ["All fields of `cnn`", TUNED], {"kind": "cnn"}),
]


UNSET = {"code"}  # of a head of one's own: the digest of its file, which nobody sets


@pytest.mark.parametrize(("spec", "page", "headings", "kind"), FIELDS, ids=[spec.__name__ for spec, *_ in FIELDS])
def test_tables_have_all_fields_with_their_defaults(
    spec: type[Spec], page: str, headings: list[str], kind: dict[str, Any]
) -> None:
    rows = [row for heading in headings for row in tables(page, heading)[0][1:]]
    shown = {row[0].strip("| `"): row[1] for row in rows}
    refused = set(CommonSpec.model_fields) if spec is EnsembleSpec else set[str]()
    if TUNED in headings:  # what is as in all heads that are trained in epochs stands on another page
        same = TrainedSpec.model_fields
        refused = {name for name in same if name not in shown and spec.model_fields[name].default == same[name].default}
        refused |= {"base", "layers"} - shown.keys()
    assert len(shown) == len(rows) and shown.keys() == spec.model_fields.keys() - UNSET - refused
    needed = {name: value for name, value in (REQUIRED | kind).items() if name in spec.model_fields}
    paths = {
        name: Path(value) for name, value in needed.items() if name in ("root", "dir")
    }  # as load_config gives them
    unset = spec.model_validate(needed | paths)
    for name, default in shown.items():
        expected = spec.model_fields[name].default if name in kind else getattr(unset, name)
        if default == "–":
            assert expected is None, name
        elif default == "required":
            assert spec.model_fields[name].is_required(), name
        elif name != "dir":  # its default is that of load_config
            value = tomllib.loads(f"value = {default.strip('`')}")["value"]
            # What is read otherwise than it is written, such as input_size, is compared after it was read.
            assert value == expected or getattr(spec.model_validate(needed | paths | {name: value}), name) == expected


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The fields of a result as the page names them."""
    whole = ("spec", "versions", "files", "feature_shapes", "parts", "winner", "failures")
    places = {"metrics": "SPLIT", "per_class": "CLASS", "leaders": "N", "effects": "FIELD"}
    if path and path[-1] in places:
        each = value.values() if isinstance(value, dict) else value
        for item in each:
            yield from leaves(item, (*path, places[path[-1]]))
    elif path and path[-1] == "FIELD":
        for item in value:
            yield from leaves(item, (*path, "N"))
    elif isinstance(value, dict) and not (path and path[-1] in (*whole, "params")):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    else:
        yield ".".join(path)


@pytest.fixture(scope="module")
def documented(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return documented_project(built, tmp_path_factory.mktemp("docs") / "project")


def test_every_field_of_a_result_is_explained_and_exists(documented: Project) -> None:
    result = json.loads((documented.artifacts / "heads" / "logreg" / "result.json").read_text())
    assert set(first_cells("docs/numbers.md", "Every field of `result.json`")) == set(leaves(result))


def test_every_field_of_a_sweep_is_explained_and_exists(documented: Project) -> None:
    assert documented.headstart("sweep").code == 0
    folder = documented.artifacts / "sweeps" / "width"
    result = json.loads((folder / "result.json").read_text())
    assert set(first_cells("docs/numbers.md", "Every field of a sweep's `result.json`")) == set(leaves(result))
    columns = (folder / "trials.csv").read_text().splitlines()[0].split(",")
    varied = ["pool", "params.C"]
    assert columns[1:3] == varied
    assert first_cells("docs/numbers.md", "Every column of `trials.csv`") == [c for c in columns if c not in varied]


def test_every_command_and_option_is_explained_and_exists(documented: Project) -> None:
    there = re.findall(r"^  ([a-z-]+)  ", documented.headstart("--help").out.partition("Commands:")[2], re.MULTILINE)
    shown, options = tables("docs/configuration.md", "Commands")
    assert [row[0].strip("| `") for row in shown[1:]] == there
    of_all = {"--config", "--debug", "--help"}
    for row in shown[1:]:
        command = row[0].strip("| `")
        found = (
            set(re.findall(r"^  (?:-[a-z], )?(--[a-z-]+)", documented.headstart(command, "--help").out, re.MULTILINE))
            - of_all
        )
        assert set(re.findall(r"--[a-z-]+", row[-1])) == found, command
    explained = {row[0].strip("| `") for row in options[1:]}
    assert explained == {option for row in shown[1:] for option in re.findall(r"--[a-z-]+", row[-1])}


def test_every_target_and_extra_is_explained_and_exists() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = [name.removeprefix("make ") for name in first_cells("docs/configuration.md", "Make targets")]
    assert sorted(listed) == sorted(set(targets) - {"help"})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert first_cells("docs/configuration.md", "Extras") == list(project["optional-dependencies"])
