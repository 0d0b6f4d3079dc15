"""Keras, loaded late and quietly, and what differs from backend to backend: devices, precision, compiling, gradients.

TensorFlow's import costs seconds, so nothing imports Keras but through here, and only when something is computed.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from cache.errors import HeadstartError
from stages import imports
from stages.bases.compilation import keep_compiled

# Seconds that loading Keras and its backend took, once it was done: what stage two spends most of a short run on.
LOADING: list[float] = []
_begun = False
CPU_FLAGS_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def load_keras() -> Any:
    """The ``keras`` module. Raises HeadstartError in one line where it cannot be imported."""
    if not os.environ.get("HEADSTART_DEBUG"):
        # Many heads in one process are many functions to trace, of which TensorFlow would warn; whoever imported it.
        logger = logging.getLogger("tensorflow")
        if logger.level != logging.ERROR:  # setting it makes every logger of the process forget what it knows
            logger.setLevel(logging.ERROR)
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    start = perf_counter()
    try:
        if imports.left_out():
            keep_compiled(_configured())
        unused = ("sklearn", "matplotlib", "pandas", *(() if _configured() == "jax" else ("jax",)))
        with without_chatter(), imports.without(*unused):
            import keras
    except ImportError as error:
        raise HeadstartError(
            f"keras: cannot be imported ({error}); install headstart into this environment: make setup"
        ) from error
    LOADING.append(perf_counter() - start)
    return keras


def _configured() -> str:
    """The backend that Keras, which is not imported yet, will take."""
    chosen = os.environ.get("KERAS_BACKEND")
    if not chosen:
        config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
        with suppress(OSError, ValueError):
            chosen = json.loads(config.read_text()).get("backend")
    return chosen or "tensorflow"


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep the native log lines of TensorFlow's start-up, and the bars of other libraries, away; show them if it fails."""
    if os.environ.get("HEADSTART_DEBUG"):
        yield
        return
    _flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as log:
        for number in kept:
            os.dup2(log.fileno(), number)
        try:
            yield
        except BaseException:
            _flush()
            log.seek(0)
            os.write(kept[2], log.read())
            raise
        finally:
            _flush()
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def fresh_session() -> None:
    """Number layers without a name of their own from the beginning, as in a new process, and free the models of before."""
    global _begun
    # Looking for garbage among all that TensorFlow's import made takes half a second, and at first there are no models.
    load_keras().utils.clear_session(free_memory=_begun)
    _begun = True


@contextmanager
def fresh_names(policy: str) -> Iterator[None]:
    """Build a model with layers named as in a new process, computing in ``policy``, channels last."""
    keras = load_keras()
    keras.config.set_image_data_format("channels_last")
    fresh_session()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def device(engine: str = "keras") -> str:
    """The device that is computed on, in words: ``CPU`` or ``GPU (name)``."""
    if engine == "openvino":
        return "CPU (OpenVINO)"
    gpus = _gpus()
    return f"GPU ({gpus[0][0]})" if gpus else "CPU"


def _gpus() -> list[tuple[str, bool]]:
    """Name of each GPU that the backend sees, and whether it has units for bfloat16 (Ampere, compute capability 8.0, and newer)."""
    backend = load_keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        return [(d.get("device_name", "unnamed"), d.get("compute_capability", (0, 0)) >= (8, 0)) for d in details]
    if backend == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        return [(gpu.device_kind, float(getattr(gpu, "compute_capability", "0")) >= 8.0) for gpu in gpus]
    if backend == "torch":
        from torch import cuda

        return [(cuda.get_device_name(i), cuda.is_bf16_supported()) for i in range(cuda.device_count())]
    return []


def batch_size(engine: str = "keras") -> int:
    """Images in a batch: few enough for a processor's caches, enough to fill a GPU."""
    return 32 if engine != "keras" or not _gpus() else 128


def precision_for(asked: str, engine: str = "keras") -> str:
    """The precision to compute in: what was asked, or for ``auto`` what the hardware has units for."""
    if asked != "auto":
        return asked
    if engine == "openvino":
        return "bfloat16" if _cpu_has_bfloat16() else "float32"
    if engine == "onnxruntime":
        return "float32"
    if gpus := _gpus():
        return "bfloat16" if gpus[0][1] else "float16"
    # Only TensorFlow's CPU kernels (oneDNN) turn bfloat16 units into speed.
    return "bfloat16" if load_keras().backend.backend() == "tensorflow" and _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        return any(f" {flag}" in text for flag in CPU_FLAGS_BFLOAT16)
    return False


def versions(of_keras: bool = True) -> dict[str, str]:
    """Versions that are recorded beside every result: Keras and its backend, where they compute it, NumPy, Python."""
    found = {"numpy": version("numpy"), "python": ".".join(map(str, sys.version_info[:3]))}
    if not of_keras:
        return found
    keras = load_keras()
    backend = keras.backend.backend()
    # The backends bear the names of their packages.
    return {"keras": keras.__version__, "backend": backend, backend: version(backend)} | found


def compiled(function: Callable[..., Any], xla: bool = True) -> Callable[..., Any]:
    """``function`` of tensors, compiled by XLA for each set of shapes; PyTorch runs it as it is.

    Without ``xla``, TensorFlow traces it alone, which takes tenths of the seconds and is enough for a few operations on many rows.
    """
    name = load_keras().backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=xla or None, autograph=False)  # type: ignore[no-any-return]
    if name == "jax":
        import jax

        return jax.jit(function)  # type: ignore[no-any-return]
    return function


def gradients(function: Callable[[Sequence[Any]], tuple[Any, Any]], at: Sequence[Any]) -> tuple[Any, list[Any]]:
    """``function(at)`` gives a scalar and something else: that, and the gradients of the scalar with respect to ``at``."""
    name = load_keras().backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(at)
            value, aside = function(at)
        return aside, tape.gradient(value, at)
    if name == "jax":
        import jax

        (_, aside), found = jax.value_and_grad(function, has_aux=True)(list(at))
        return aside, found
    import torch

    leaves = [each.detach().requires_grad_() for each in at]
    value, aside = function(leaves)
    found = list(torch.autograd.grad(value, leaves))
    return load_keras().tree.map_structure(lambda each: each.detach(), aside), found
