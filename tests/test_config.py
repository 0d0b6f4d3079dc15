"""The configuration: what is read, and how a mistake in it is told."""

from pathlib import Path

import pytest

from cache.errors import ConfigError
from pipeline.config.load import Config, load_config
from stages.fields import Range
from stages.heads.spec import head_key
from stages.sweeps.trials import Trial, trials_of
from stages.training.spec import DenseSpec

MINIMAL = '[data]\nroot = "photos"\n'
HEAD = MINIMAL + '[heads.x]\nkind = "dense"\n'
SWEEP = HEAD + '[sweeps.s]\nhead = "x"\n'
RANDOM = SWEEP + 'strategy = "random"\ntrials = 3\n'
HALVING = SWEEP + 'strategy = "halving"\n'
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


@pytest.mark.parametrize("path", ["headstart.toml", "pipeline/demo/headstart.toml"])
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
        ("[data]\nrot = 1", r"\[data\] rot: unknown field \(did you mean 'root'\?\)$"),
        ("[dta]\n", r"c.toml: dta: unknown section \(did you mean 'data'\?\)$"),
        (MINIMAL + "[base]\ninput_size = 0", r"\[base\] input_size.*greater than 0, found 0"),
        (MINIMAL + '[base]\ninput_size = "big"', r"\[base\] input_size: expected a whole number, or \[height, width\], found 'big'"),
        (MINIMAL + '[base]\nname = "VG16"', r"\[base\] name: no base 'VG16' in keras.applications \(did you mean 'VGG16'\?\)"),
        (MINIMAL + '[base]\nname = "model.onnx"', r"\[base\] name: no base 'model.onnx' in keras.applications \(did you mean \"file:model.onnx\"\?\)"),
        (MINIMAL + '[base]\nname = "models/dino"', r"\[base\] name: no base 'models/dino' in keras.applications \(did you mean \"hub:models/dino\"\?\)"),
        (MINIMAL + '[base]\nname = "models/model.h5"', r"no base 'models/model.h5' in keras.applications; there are "),
        (MINIMAL + '[base]\nname = "dinov2_small"', r"\[base\] name: no base 'dinov2_small' in keras.applications \(did you mean \"hub:dinov2_small\"\?\)"),
        (MINIMAL + "[base]\nmean = [0.5, 0.5]", r"\[base\] mean: expected 3 numbers, one for each channel, found 2$"),
        (MINIMAL + "[base]\nstd = [1, 1, 1, 1]", r"\[base\] std: expected 3 numbers, one for each channel, found 4$"),
        (MINIMAL + '[base]\nprecision = "half"', r"\[base\] precision: should be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', found 'half'"),
        (MINIMAL + '[base]\nlayer = "a"\nlayers = ["b"]', r"\[base\].*expected layer or layers, found both"),
        (MINIMAL + '[base]\nlayers = ["b", "b"]', r"\[base\].*layers: expected each once"),
        (MINIMAL + '[base]\nprecision = "int8"', r'precision "int8" needs engine = "openvino"'),
        (MINIMAL + '[base]\nengine = "openvino"\nprecision = "float16"', r'engine "openvino" computes in'),
        (MINIMAL + '[base]\npreprocess = "tf"', r"preprocess: VGG16 has its own, found 'tf'; leave it out"),
        (MINIMAL + '[base]\nname = "file:x.h5"', r'expected "file:….keras" or "file:….onnx", found .file:x.h5'),
        (MINIMAL + '[base]\nname = "hub:"', r'\[base\] name: expected "hub:" and a preset of KerasHub or the folder of one, found "hub:"; name it'),
        (MINIMAL + '[base]\nname = "hub:vit"\nweights = "imagenet"', r"weights: hub:vit brings its own, found 'imagenet'; leave weights out"),
        (MINIMAL + '[base]\nname = "hub:vit"\npreprocess = "tf"', r"preprocess: hub:vit has its own, found 'tf'; leave it out"),
        (MINIMAL + '[base]\nname = "hub:vit"\nprecision = "int8"\nengine = "openvino"', r'precision "int8": hub:vit cannot be quantised here'),
        (MINIMAL + '[base]\nname = "hub:vit"\nengine = "onnxruntime"', r'engine "onnxruntime" computes ONNX models, found hub:vit; take "keras" or "openvino"'),
        (MINIMAL + '[base]\nname = "file:x.onnx"\nengine = "keras"', r'engine "keras" computes no ONNX model, found file:x.onnx; take "onnxruntime" or "openvino"'),
        (MINIMAL + '[base]\nname = "file:x.onnx"\nprecision = "float16"', r"""engine "onnxruntime" computes in "float32", found 'float16'"""),
        (MINIMAL + '[base]\nname = "file:x.onnx"\nfinal_norm = true', r"\[base\] final_norm: of bases of KerasHub alone"),
        (MINIMAL + '[base]\nname = "file:x.onnx"\ninclude_top = true', r"include_top: there is no top for x.onnx; leave it out"),
        (MINIMAL + '[base]\nname = "file:x.onnx"\noutput = "cl"', r"output: should be 'cls', 'patches', 'mean' or 'cls\+mean', found 'cl' \(did you mean 'cls'\?\)"),
        (MINIMAL + "[base]\nprefix_tokens = -1", r"prefix_tokens: should be greater than or equal to 0, found -1"),
        (MINIMAL + "[base]\ninclude_top = true", r'include_top: expected a layer of the top, such as layer = "fc2" of VGG16; name one'),
        (MINIMAL + '[base]\nweights = "packaged"\ninclude_top = true\nlayer = "fc2"', r"include_top: there is no top for packaged weights; leave it out"),
        (MINIMAL + '[base]\nrescale = "1/0"', r'rescale: expected a number such as 0.5 or "1/255", found .1/0'),
        (MINIMAL + '[base]\nrescale = "half"', r'rescale: expected a number such as 0.5 or "1/255", found .half'),
        (MINIMAL + "[base]\nscale = 0", r"scale: should be greater than 0, found 0"),
        (MINIMAL + "[base]\nscale = 0.5\nrescale = 0.5", r"expected scale or rescale, which are the same, found both; keep one of them"),
        (MINIMAL + "[base]\nmean = [0.5]", r"mean: expected 3 numbers, one for each channel, found 1"),
        (MINIMAL + "[base]\nstd = [0.5, 0.0, 0.5]", r"std: expected numbers above 0, found \[0.5, 0.0, 0.5\]"),
        (MINIMAL + '[base]\nresize = "crop"\ncrop = 0.9', r'crop: goes with resize = "shortest" or "squash", found .crop'),
        (MINIMAL + '[base]\nresize = "center"', r"resize: should be 'squash', 'shortest', 'crop' or 'stretch', found 'center'"),
        (MINIMAL + '[base]\nfilter = "lanczos"\nantialias = false', r"antialias = false goes with filter .*, found 'lanczos'"),
        (MINIMAL + '[base]\nname = "file:x.keras"\npreprocess = "tf"\nmean = [0.0, 0.0, 0.0]', r"expected preprocess, or scale, mean, std and order, found both"),
        (MINIMAL + '[base]\nname = "file:x.keras"\nweights = "imagenet"', r"weights: file:x.keras brings its own"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nlayers = ["block4_pool"]', r"layers: the base extracts no layer 'block4_pool' \(did you mean 'block5_pool'\?\); it extracts block5_pool; add it"),
        (MINIMAL + '[cache]\ncompression = "zip"', r"\[cache\] compression: should be 'zstd', 'lzf' or 'none', found 'zip'"),
        (MINIMAL + "[heads.x]\n", r"\[heads.x\] kind: expected one of dense, keras, sklearn, ensemble, finetune, end_to_end, cnn, found None"),
        (MINIMAL + '[heads.x]\nkind = "finetun"', r"\[heads.x\] kind: expected one of dense, .*, found 'finetun' \(did you mean 'finetune'\?\)$"),
        (MINIMAL + '[heads.x]\nkind = ["dense"]', r"\[heads.x\] kind: expected one of dense, .*, found \['dense'\]$"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nunit = 3', r"\[heads.x\] unit: unknown field \(did you mean 'units'\?\)"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nunits = [0]', r"\[heads.x\] units.0: should be greater than 0, found 0"),
        (MINIMAL + '[heads.x]\nkind = "dense"\ndropout = 1.0', r"\[heads.x\] dropout: should be less than 1, found 1.0"),
        (MINIMAL + '[heads.x]\nkind = "sklearn"', r"\[heads.x\] estimator: expected a value, found none; add it"),
        (MINIMAL + '[heads.x]\nkind = "dense"\nbase = "vgg"', r"\[heads.x\] base: no base 'vgg'; there are base"),
        (MINIMAL + '[heads."a/b"]\nkind = "dense"', r"\[heads.a/b\] expected a name that begins with a letter or digit.*found 'a/b'"),
        (MINIMAL + '[heads._x]\nkind = "dense"', r"\[heads._x\] expected a name that begins with a letter or digit.*found '_x'; rename it"),
        (MINIMAL + "validation = 0.7\ntest = 0.5", r"validation \+ test must stay below 1, found 0.7 \+ 0.5"),
        (MINIMAL + "validation = 0.0", "validation must be above 0"),
        (MINIMAL + "[base]\n[bases.x]\n", r"expected \[base\] or \[bases.NAME\], found both"),
        (MINIMAL + "[base\n", "c.toml: expected TOML, found "),
        ("data = 3", r"expected a table \[data\], found 3"),
        (HEAD + 'layers = ["block5_pool", "block5_pool"]', r"\[heads.x\] layers: expected each once, found "),
        (SWEEP + 'grid.layers = [["block5_pool", "block5_pool"]]', r"\[sweeps.s\] grid.layers: expected each once"),
        (HEAD + "layers = []", r"\[heads.x\] layers: expected one at least, found none$"),
        (MINIMAL + "seed = -1", r"\[data\] seed: should be greater than or equal to 0, found -1"),
        (MINIMAL + "[base]\nseed = -1", r"\[base\] seed: should be greater than or equal to 0, found -1"),
        (HEAD + "seed = -1", r"\[heads.x\] seed: should be greater than or equal to 0, found -1"),
        (SWEEP + "grid.seed = [0, -1]", r"\[sweeps.s\] grid.seed: should be greater than or equal to 0, found -1"),
        (SWEEP + "seed = 99999999999", r"\[sweeps.s\] seed: should be less than or equal to 4294967295, found 99999999999"),
        (HEAD + "learning_rate = inf", r"\[heads.x\] learning_rate: expected a finite number, found inf"),
        (HEAD + "weight_decay = nan", r"\[heads.x\] weight_decay: expected a finite number, found nan"),
        (MINIMAL + "validation = nan", r"\[data\] validation: expected a finite number, found nan"),
        (SWEEP + "grid.weight_decay = [0.0, inf]", r"\[sweeps.s\] grid.weight_decay: expected a finite number, found inf"),
        (RANDOM + "grid.weight_decay = { low = 0.0, high = inf }", r"\[sweeps.s\] grid.weight_decay.high: expected a finite number, found inf"),
        (RANDOM + "grid.weight_decay = { low = false, high = 1.0 }", r"grid.weight_decay.low: expected a finite number, found False"),
        (RANDOM + "grid.learning_rate = { low = 1e-2, high = 1e-4 }", r"\[sweeps.s\] grid.learning_rate: expected low < high, found 0.01 and 0.0001$"),
        (RANDOM + "grid.learning_rate = { low = 0.0, high = 1e-4, log = true }", r"\[sweeps.s\] grid.learning_rate: log: expected low > 0, found 0.0$"),
        (RANDOM + "grid.learning_rate = { low = 0.1, hi = 1 }", r"\[sweeps.s\] grid.learning_rate.hi: unknown field \(did you mean 'high'\?\)$"),
        (RANDOM + "grid.learning_rate = { min = 0.1, max = 1.0 }", r"\[sweeps.s\] grid.learning_rate.min: unknown field; known are low, high, log"),
        (RANDOM + "grid.learning_rate = { low = 0.1 }", r"\[sweeps.s\] grid.learning_rate.high: expected a value, found none; add it$"),
        (RANDOM + "grid.learning_rate = 0.1", r"\[sweeps.s\] grid.learning_rate: expected a list, found 0.1$"),
        (RANDOM + "grid.epochs = { low = 1.0, high = 3.0 }", r"\[sweeps.s\] grid.epochs: expected a whole number, found 1.0"),
        (SWEEP + "grid.epochs = { low = 1, high = 3 }", r'grid.epochs: strategy "grid" takes a list, found a range; take strategy "random", with trials'),
        (HALVING + "grid.dropout = { low = 0.1, high = 0.3 }", r'grid.dropout: strategy "halving" takes a list, found a range; set trials'),
        (HALVING + "grid.units = [[], [8]]\nmin_epochs = 30", r"\[sweeps.s\] min_epochs: expected fewer than the 30 epochs of the head 'x', found 30; no trial would be dropped"),
        (HALVING + "grid.epochs = [3, 4]", r'\[sweeps.s\] grid.epochs: strategy "halving" divides the epochs itself; set epochs in the head'),
        (RANDOM + "grid.units = [[], [8]]\nmin_epochs = 2", r'\[sweeps.s\] min_epochs: only strategy "halving" has it, found "random"; leave it out'),
        (SWEEP + "factor = 2", r'\[sweeps.s\] factor: only strategy "halving" has it, found "grid"; leave it out'),
        (SWEEP + "grid.refit = [true, false]", r"\[sweeps.s\] grid.refit: trials cannot differ in it; set refit in the sweep itself"),
        (SWEEP + "grid.cv = [3, 5]", r"\[sweeps.s\] grid.cv: trials cannot differ in it; set cv in the sweep itself"),
        (HEAD + "momentum = 0.5", r'\[heads.x\] momentum: only optimizer "sgd" takes it, found "rmsprop"; leave it out'),
        (HEAD + "focal_gamma = 1.0", r'\[heads.x\] focal_gamma: only loss "focal" takes it, found "cross_entropy"; leave it out'),
        (HEAD + 'loss = "focl"', r"\[heads.x\] loss: should be 'cross_entropy' or 'focal', found 'focl' \(did you mean 'focal'\?\)"),
        (HEAD + "mixup = -0.1", r"\[heads.x\] mixup: should be greater than or equal to 0, found -0.1"),
        (SWEEP + "grid.focal_gamma = [1.0, 2.0]", r'\[sweeps.s\] grid.focal_gamma: only loss "focal" takes it, found None; leave it out'),
        (SWEEP + 'grid.monitor = ["val_loss"]', r"\[sweeps.s\] grid.monitor: should be 'loss' or 'accuracy', found 'val_loss'"),
        (MINIMAL + '[heads.x]\nkind = "keras"\nbuild = "a.py:b"\nl2 = 0.1', r'\[heads.x\] l2: a head of kind "keras" has layers of its own, found 0.1; give them kernel_regularizer=keras.regularizers.L2'),
        (MINIMAL + '[heads.x]\nkind = "sklearn"\nestimator = "LinearSVC"\nmixup = 0.2', r"\[heads.x\] mixup: unknown field; known are "),
        (SWEEP + 'grid.optimizer = ["adm"]', r"\[sweeps.s\] grid.optimizer: should be 'rmsprop', .*found 'adm' \(did you mean 'adam'\?\)"),
        (SWEEP + "grid.params.C = [1.0]", r"\[sweeps.s\] grid.params: unknown field; known are base, "),
        (SWEEP + 'strategy = "gird"', r"\[sweeps.s\] strategy: .*found 'gird' \(did you mean 'grid'\?\)"),
        (MINIMAL + '[heads.x]\nkind = "keras"\nbuild = "mine"', r'\[heads.x\] build: expected "file.py:function", found .mine'),
        (HEAD + "units = [1000000000]", r"\[heads.x\] units.0: should be less than or equal to 65536, found 1000000000"),
        (SWEEP + "grid.units = [[1000000000]]", r"\[sweeps.s\] grid.units.0: should be less than or equal to 65536"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_drawn_where_the_field_is_whole(tmp_path: Path) -> None:
    text = "grid.epochs = { low = 1, high = 9 }\ngrid.weight_decay = { low = 0, high = 1 }\ngrid.dropout = [0.1]\n"
    grid = config(tmp_path, RANDOM + text).sweeps["s"].spec.grid
    assert {name: values.whole for name, values in grid.items() if isinstance(values, Range)} == {
        "epochs": True, "weight_decay": False,
    }  # fmt: skip
    text = RANDOM.replace('"dense"', '"sklearn"\nestimator = "LinearSVC"')
    grid = config(tmp_path, text + "grid.params = { C = { low = 1, high = 2 } }").sweeps["s"].spec.grid
    assert grid == {"params.C": Range(low=1, high=2)} and grid["params.C"].whole


@pytest.mark.parametrize(
    ("field", "off", "on"),
    [("patience", '"none"', "3"), ("patience", "false", "3"), ("class_weight", '"none"', '"balanced"')],
)
def test_what_can_be_off_can_be_swept_against_it(tmp_path: Path, field: str, off: str, on: str) -> None:
    found = config(tmp_path, SWEEP + f"grid.{field} = [{off}, {on}]")
    head, sweep = found.heads["x"].spec, found.sweeps["s"]
    values = sweep.spec.grid[field]
    assert isinstance(values, list)
    keys = [head_key(found.variant(sweep, {field: value}).spec, "b", "r") for value in values]
    assert keys[0] == head_key(head, "b", "r") != keys[1]


def test_a_momentum_that_the_optimizer_does_not_take_makes_no_other_trial(tmp_path: Path) -> None:
    found = config(tmp_path, SWEEP + 'grid = { optimizer = ["sgd", "adam"], momentum = [0.5, 0.9] }')
    sweep = found.sweeps["s"]

    def variant(params: dict) -> Trial:
        entry = found.variant(sweep, params)
        return Trial(params, entry.base, entry.layers, entry.spec, head_key(entry.spec, "b", "r"))

    assert sorted(trial.params["optimizer"] for trial in trials_of(sweep.spec, variant)) == ["adam", "sgd", "sgd"]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: no such configuration; name one with --config FILE"):
        load_config(tmp_path / "none.toml")
