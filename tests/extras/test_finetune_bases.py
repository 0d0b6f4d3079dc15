"""Fine-tuning from the cache is equal to training end to end for the kinds of bases that people take, each with random weights."""

from pathlib import Path

import pytest
from test_finetune import end_to_end, history
from tuned_project import made

BASES = [
    ("MobileNetV2", "block_15_add", "out_relu", "block_16_expand", 1e-4),
    ("ResNet50", "conv5_block2_out", "conv5_block3_out", "conv5_block3_1_conv", 1e-4),
    ("EfficientNetB0", "block6d_add", "top_activation", "block7a_expand_conv", 1e-3),
]


@pytest.mark.parametrize(("name", "before", "last", "start", "rate"), BASES, ids=[each[0] for each in BASES])
def test_it_is_equal_to_training_end_to_end(
    tmp_path: Path, name: str, before: str, last: str, start: str, rate: float
) -> None:
    base = ('name = "VGG16"', f'name = "{name}"\nlayers = ["{before}", "{last}"]')
    project = made(tmp_path / "project", base, "1", rate)
    outcome = project.make("heads")
    assert outcome.code == 0, outcome.out
    found = history(project, "tuned")
    assert abs(found[0]["loss"] - found[2]["loss"]) > 2e-5
    for row, other in zip(found, end_to_end(project, "tuned", start), strict=True):
        assert {name: row[name] for name in other} == pytest.approx(other, abs=1e-3)
