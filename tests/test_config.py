"""The configuration: what is read, and how a mistake in it is told."""

from pathlib import Path

import pytest

from cache.errors import ConfigError
from pipeline.config import Config, load_config
from stages.specs import DenseSpec

MINIMAL = '[data]\nroot = "photos"\n'
ROOT = Path(__file__).parents[1]


def config(tmp_path: Path, text: str) -> Config:
    (tmp_path / "c.toml").write_text(text)
    return load_config(tmp_path / "c.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = config(tmp_path, MINIMAL + '[base]\nweights = "w.h5"\n[cache]\ndir = "../out"\n')
    assert found.data.root == tmp_path / "photos"
    assert found.cache.dir == tmp_path / "../out"
    assert found.bases["base"].weights == str(tmp_path / "w.h5")


def test_defaults(tmp_path: Path) -> None:
    found = config(tmp_path, MINIMAL)
    base = found.bases["base"]
    assert (base.name, base.input_size, base.cuts, base.weights) == ("VGG16", (150, 150), ("block5_pool",), "imagenet")
    assert found.cache.dir == tmp_path / "artifacts" and found.cache.dtype == "float16"


@pytest.mark.parametrize("path", ["headstart.toml", "stages/demo/headstart.toml"])
def test_the_configurations_that_are_shipped_are_valid(path: str) -> None:
    found = load_config(ROOT / path)
    assert len(found.heads) >= 4


def test_the_sample_holds_the_heads_that_it_should() -> None:
    heads = load_config(ROOT / "headstart.toml").heads
    classic = heads["dense256"].spec
    assert isinstance(classic, DenseSpec)
    assert (classic.pool, classic.units, classic.dropout, classic.optimizer) == ("flatten", [256], 0.5, "rmsprop")
    assert (classic.learning_rate, classic.epochs, classic.batch_size) == (2e-5, 30, 20)
    assert heads["gap"].spec.model_dump()["units"] == [1024, 1024, 512]
    assert sum(entry.spec.kind == "sklearn" for entry in heads.values()) == 4


def test_several_bases(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        MINIMAL + '[bases.vgg]\n[bases.mobile]\nname = "MobileNetV2"\n'
        '[heads.a]\nkind = "dense"\n[heads.b]\nkind = "dense"\nbase = "mobile"\n'
        '[heads.c]\nkind = "dense"\nbase = ["vgg", "mobile"]\n',
    )
    assert {name: entry.base for name, entry in found.heads.items()} == {
        "a": "vgg", "b": "mobile", "c@vgg": "vgg", "c@mobile": "mobile",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"c.toml: expected a \[data\] table with root"),
        ("[data]\nrot = 1", r"\[data\] rot: unknown key \(did you mean 'root'\?\); known are root, layout"),
        ("[dta]\n", r"\[dta\]: unknown key \(did you mean 'data'\?\); known are data, base, bases, cache, heads"),
        (MINIMAL + "[base]\ninput_size = 0", r"\[base\] input_size.*greater than 0, found 0"),
        (MINIMAL + '[base]\ninput_size = "big"', r"\[base\] input_size: expected a whole number, or \[height, width\], found 'big'"),
        (MINIMAL + '[base]\nname = "VG16"', r"\[base\] name: no base 'VG16' in keras.applications \(did you mean 'VGG16'\?\); there are ConvNeXtBase, "),
        (MINIMAL + '[base]\nprecision = "half"', r"\[base\] precision: should be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', found 'half'"),
        (MINIMAL + '[base]\nlayer = "a"\nlayers = ["b"]', r"\[base\].*expected layer or layers, found both"),
        (MINIMAL + '[base]\nlayers = ["b", "b"]', r"\[base\].*layers: expected each once"),
        (MINIMAL + '[base]\nprecision = "int8"', r'precision "int8" needs engine = "openvino"'),
        (MINIMAL + '[base]\nengine = "openvino"\nprecision = "float16"', r'engine "openvino" computes in'),
        (MINIMAL + '[base]\npreprocess = "tf"', r"preprocess: VGG16 has its own, found 'tf'; leave it out"),
        (MINIMAL + '[base]\nname = "file:x.h5"', r'expected "file:….keras", found .file:x.h5'),
        (MINIMAL + '[base]\nname = "file:x.keras"\nweights = "imagenet"', r"weights: file:x.keras brings its own"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nlayers = ["block4_pool"]', r"layers: the base extracts no layer 'block4_pool' \(did you mean 'block5_pool'\?\); it extracts block5_pool; add it"),
        (MINIMAL + '[cache]\ncompression = "zip"', r"\[cache\] compression: should be 'zstd', 'lzf' or 'none', found 'zip'"),
        (MINIMAL + "[heads.x]\n", r"\[heads.x\] kind: expected one of dense, keras, sklearn, found None"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nunit = 3', r"\[heads.x\] unit: unknown key \(did you mean 'units'\?\)"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nunits = [0]', r"\[heads.x\] units.0: should be greater than 0, found 0"),
        (MINIMAL + '[heads.x]\nkind = "dense"\ndropout = 1.0', r"\[heads.x\] dropout: should be less than 1, found 1.0"),
        (MINIMAL + '[heads.x]\nkind = "sklearn"', r"\[heads.x\] estimator: expected a value, found none; add it"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nbase = "vgg"', r"\[heads.x\] base: no base 'vgg'; there are base"),
        (MINIMAL + '[heads."a/b"]\nkind = "dense"', r"expected a name of letters, digits.*found 'a/b'"),
        (MINIMAL + "validation = 0.7\ntest = 0.5", r"validation \+ test must stay below 1, found 0.7 \+ 0.5"),
        (MINIMAL + "validation = 0.0", "validation must be above 0"),
        (MINIMAL + "[base]\n[bases.x]\n", r"expected \[base\] or \[bases.NAME\], found both"),
        (MINIMAL + "[base\n", "c.toml: expected TOML, found "),
        ("data = 3", r"expected a table \[data\], found 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: no such configuration; name one with --config FILE"):
        load_config(tmp_path / "none.toml")
