"""Where a base can be cut in two, what a table of fine-tuning says that cannot be, checkpoints and schedules."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Project
from tuned_project import HEADS, VGG, made

from cache.errors import BaseError, ConfigError
from pipeline.config.load import load_config
from stages.bases.backend import load_keras
from stages.bases.model import build
from stages.bases.parts import found_tail, part_between
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.heads.checkpoint import Checkpoint, Kept
from stages.heads.epochs import schedule
from stages.heads.tuned_spec import FinetuneSpec


def test_the_layer_before_is_asked_for_before_anything_is_extracted(tmp_path: Path) -> None:
    project = made(tmp_path / "project", ("VGG16", "VGG16"), "1", 1e-6)
    said = (
        "[heads.tuned] from: training begins with 'block5_conv1', on the activations of 'block4_pool' (2 × 2 × 512, 4.1 kB an image as "
        'float16), which VGG16 does not extract; set layers = ["block4_pool", "block5_pool"] in the base'
    )
    for command in (["features"], ["features", "--dry-run"]):
        outcome = project.headstart(*command)
        assert outcome.code == 1 and said in outcome.out and outcome.extracted == 0
    project.edit(*VGG)
    # All values of a sweep, not one after another as their turns come.
    plain = project.config.read_text()
    grid = '[sweeps.start]\nhead = "tuned"\ngrid = { learning_rate = [1e-6, 1e-5], from = [1, 2] }\n'
    project.config.write_text(plain + grid)
    outcome = project.headstart("features", "--dry-run")
    said = "[sweeps.start] from = 2: training begins with 'block4_conv1', on the activations of 'block3_pool' (4 × 4 × 256, "
    assert outcome.code == 1 and said in outcome.out, outcome.out
    project.config.write_text(plain)
    assert "36 images to extract" in project.headstart("features", "--dry-run").out
    assert project.headstart("features").extracted == 36
    # What one head lacks keeps no other from being trained.
    project.edit(*reversed(VGG))
    outcome = project.headstart("heads")
    assert outcome.code == 1 and outcome.trained == ["small"], outcome.out
    assert "failed: head 'tuned': from: training begins with 'block5_conv1'" in outcome.out


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ('"block5_conv9"', "from: VGG16 has no layer 'block5_conv9' up to 'block5_pool' (did you mean 'block5_conv"),
        ('"block5_pool"', "nothing can be trained from 'block5_pool' to 'block5_pool'"),
        ('"block1_conv1"', "the whole of VGG16 would be trained, from the image on"),
        ("6", "VGG16 has 5 blocks (block1, block2, block3, …), found 6"),
    ],
)
def test_a_start_that_cannot_be(project: Project, start: str, message: str) -> None:
    project.config.write_text(project.config.read_text() + HEADS.format(start=start, rate=1e-6))
    outcome = project.headstart("heads")
    assert outcome.code == 1 and message in outcome.out, outcome.out


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('head = "small"', 'head = "logreg"'), 'expected a head of kind "dense", found \'logreg\', which is one of kind "sklearn"'),
        (('head = "small"', 'head = "smal"'), "head: no head 'smal' (did you mean 'small'?)"),
        (("units = [8]", "units = [8]\nrefit = true"), "head: 'small' has refit = true"),
        (("units = [8]", 'units = [8]\nlayers = ["block4_pool", "block5_pool"]'), "expected a head on one layer, found 'small'"),
        (('head = "small"', 'head = "small"\nlayers = ["block5_pool"]'), "layers: follow from head and from; leave them out"),
        (("from = 1", "from = 0"), "[heads.tuned] from: expected a layer, or a number of last blocks from 1 on, found 0"),
        (("from = 1", "from = 1\nwarmup = 3.0"), "warmup: expected fewer than the 3 epochs, found 3"),
        (("from = 1", "from = 1\nviews = true"), "views: expected augmented views of the base 'base'"),
        (("[heads.tuned]", "[sweeps.tune]\nhead = \"tuned\"\ncv = 2\n[heads.tuned]"), "cv: the head that 'tuned' begins with has seen all"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be(tmp_path: Path, edit: tuple[str, str], message: str) -> None:
    text = CONFIG.replace(*VGG) + HEADS.format(start="1", rate=1e-6)
    assert edit[0] in text
    (tmp_path / "c.toml").write_text(text.replace(*edit))
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.toml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "start", "before"),
    [
        ("VGG16", 2, "block3_pool"),
        ("ResNet50", 1, "conv5_block2_out"),
        ("ResNet50", "conv5_block1_1_conv", "conv4_block6_out"),
        ("MobileNetV2", "Conv_1", "block_16_project_BN"),
        ("EfficientNetB0", 1, "block6d_add"),
        ("DenseNet121", 1, "conv5_block15_concat"),
    ],
)
def test_where_one_tensor_separates_a_base(name: str, start: int | str, before: str) -> None:
    spec = BaseSpec.model_validate({"name": name, "weights": "random", "input_size": 32})
    base = build(spec, Weights(spec, Path("nowhere")), "float32")
    tail = found_tail(base, spec, start, spec.cuts[-1])
    assert tail.before == before
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    halves = part_between(base, before, tail.end)(
        part_between(base, None, before)(images, training=False), training=False
    )
    whole = np.array(base(images, training=False))
    assert np.abs(np.array(halves) - whole).max() <= 1e-4 * np.abs(whole).max()


def test_a_sequential_model_of_ones_own_can_be_cut_between_its_layers(tmp_path: Path) -> None:
    keras = load_keras()
    layers = [keras.layers.Conv2D(4, 3, strides=2, name=name) for name in ("first", "second", "third")]
    whole = keras.Sequential([keras.layers.Input((32, 32, 3)), *layers])
    whole.save(tmp_path / "own.keras")
    spec = BaseSpec.model_validate({"name": f"file:{tmp_path / 'own.keras'}", "input_size": 32})
    spec = spec.model_copy(update={"weights": str(tmp_path / "own.keras")})
    base = build(spec, Weights(spec, tmp_path), "float32")
    tail = found_tail(base, spec, "second", "third")
    assert tail.before == "first" and tail.shape == (15, 15, 4)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    before = part_between(base, None, "first")(images)
    np.testing.assert_allclose(part_between(base, "first", "third")(before), whole(images), atol=1e-5)


def test_a_layer_that_is_used_twice_is_one_line(tmp_path: Path) -> None:
    keras = load_keras()
    images, twice = keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 3, padding="same", name="twice")
    keras.Model(images, keras.layers.ReLU(name="end")(twice(twice(images)))).save(tmp_path / "own.keras")
    spec = BaseSpec.model_validate({"name": f"file:{tmp_path / 'own.keras'}", "input_size": 16})
    spec = spec.model_copy(update={"weights": str(tmp_path / "own.keras")})
    base = build(spec, Weights(spec, tmp_path), "float32")
    with pytest.raises(BaseError, match="uses each of its layers once"):
        found_tail(base, spec, "twice", "end")


@pytest.mark.parametrize(
    ("name", "start", "nearest"),
    [
        ("ResNet50", "conv5_block3_2_conv", "layer at which it can be cut is 'conv5_block3_1_conv'"),
        # What adds a shortcut takes the output of the block before, but not that alone.
        ("ResNet50", "conv5_block3_add", "layer at which it can be cut is 'conv5_block3_1_conv'"),
        ("MobileNetV2", "block_15_add", "layers at which it can be cut are 'block_15_expand' and 'block_16_expand'"),
        ("DenseNet121", "conv5_block15_concat", "layers at which it can be cut are 'conv5_block15_0_bn' and 'conv5_block16_0_bn'"),
    ],
)  # fmt: skip
def test_beside_a_shortcut_the_nearest_layers_are_named(name: str, start: str, nearest: str) -> None:
    spec = BaseSpec.model_validate({"name": name, "weights": "random", "input_size": 32})
    base = build(spec, Weights(spec, Path("nowhere")), "float32")
    with pytest.raises(BaseError, match=f"before '{start}', .* nearest {nearest}$"):
        found_tail(base, spec, start, spec.cuts[-1])


@pytest.mark.parametrize(
    ("head", "base", "message"),
    [
        (
            "small@b",
            "",
            "'small@b' is on the base 'b', found 'a'; set base = \"b\", or head = \"small\" without base, which is",
        ),
        ("one", 'base = "a"', "'one' is on the base 'b', found 'a'; set base = \"b\", or leave base out"),
        ("small@b", 'base = "b"', ""),
        ("small", "", ""),
        ("one", "", ""),
    ],
)
def test_a_head_on_another_base_and_what_is_possible(tmp_path: Path, head: str, base: str, message: str) -> None:
    bases = "".join(f'[bases.{name}]\nlayers = ["block4_pool", "block5_pool"]\n' for name in "ab")
    heads = '[heads.small]\nkind = "dense"\nbase = ["a", "b"]\n[heads.one]\nkind = "dense"\nbase = "b"\n'
    tuned = f'[heads.tuned]\nkind = "finetune"\nhead = "{head}"\n{base}\n'
    (tmp_path / "c.toml").write_text(f'[data]\nroot = "photos"\n{bases}{heads}{tuned}')
    if not message:
        assert [name for name in load_config(tmp_path / "c.toml").heads if name.startswith("tuned")]
        return
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.toml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_of_another_head_or_a_damaged_one_is_not_gone_on_with(tmp_path: Path) -> None:
    shapes = [(2, 3), (3,), ()]
    state = [np.full(shape, float(i), np.float32) for i, shape in enumerate(shapes)]
    checkpoint = Checkpoint(tmp_path / "checkpoint.npz", "key")
    checkpoint.write(Kept([{"loss": 1.0}], 1, 2.0, 3, state, state[:2]))
    found = checkpoint.read(shapes, 2)
    assert found is not None and found.history == [{"loss": 1.0}] and found.images_read == 3
    assert all(np.array_equal(a, b) for a, b in zip(found.state, state, strict=True))
    assert Checkpoint(checkpoint.path, "other").read(shapes, 2) is None
    assert checkpoint.read([(2, 3), (4,), ()], 2) is None and checkpoint.read(shapes[:2], 3) is None
    whole = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(whole[:-100])
    assert checkpoint.read(shapes, 2) is None
    at = whole.index(state[1].tobytes())
    checkpoint.path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    assert checkpoint.read(shapes, 2) is None
    rng = np.random.default_rng(0)
    for at, bit in zip(rng.integers(0, len(whole), 2000), rng.integers(0, 8, 2000), strict=True):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << bit
        checkpoint.path.write_bytes(flipped)
        found = checkpoint.read(shapes, 2)  # as it was written, or not at all
        assert found is None or all(np.array_equal(a, b) for a, b in zip(found.state, state, strict=True))
    checkpoint.path.unlink()
    assert checkpoint.read(shapes, 2) is None


def test_schedules_are_keras_s_and_end_where_they_should() -> None:
    def rates(**options: Any) -> list[float]:
        spec = FinetuneSpec.model_validate(
            {"kind": "finetune", "head": "h", "learning_rate": 1.0, "epochs": 4, **options}
        )
        found = schedule(spec, 10)
        return [float(found(step)) for step in (0, 5, 10, 25, 40)]

    assert rates(warmup=1.0) == pytest.approx([0, 0.5, 1, 1, 1])
    assert rates(cosine=True) == pytest.approx([1, 0.962, 0.854, 0.309, 0], abs=1e-3)
    assert rates(warmup=1.0, cosine=True) == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
