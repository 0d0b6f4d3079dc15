"""Arrays from a file that ``torch.save`` wrote before PyTorch 1.6 (no zip archive), without PyTorch and without unpickling it.

Such a file holds pickles: a magic number, the version of the format, the machine's sizes, the tensors without their contents,
and a list of storages; then come the storages, as their length and their contents. ``pickle`` calls whatever a file names. So
these pickles are read here operation by operation, and an operation can make plain values, dictionaries and tensors, and
nothing else: there is nothing in this file that could call what a file names.

The format: https://github.com/pytorch/pytorch/blob/v1.5.0/torch/serialization.py (``_legacy_save``), and
https://github.com/pytorch/pytorch/blob/v1.5.0/torch/_utils.py (``_rebuild_tensor_v2``).
"""

import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
# What a file may name: a dictionary, a tensor, and the contents of storages by their types.
DICTIONARY, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
TYPES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
PLAIN = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
MADE: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
MOST_DIMENSIONS = 32


class Name(str):
    """Something that the file names, which stays a name."""


class Storage(NamedTuple):
    """Contents that come later in the file: so many numbers of one type."""

    key: str
    dtype: np.dtype[Any]
    length: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The dictionary of tensors (``state_dict``) in a file, as read-only arrays, in its order.

    Raises BaseError for anything else than tensors of float32 and int64 that lie within their storages.
    """
    try:
        return _read(BytesIO(path.read_bytes()))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BaseError(
            f"{path}: expected tensors as torch.save wrote them before PyTorch 1.6, found {reason}"
        ) from error


def _read(file: BytesIO) -> dict[str, NDArray[Any]]:
    if _value(file) != MAGIC or _value(file) != VERSION:
        raise ValueError("another kind of file")
    if _value(file)["little_endian"] is not True:
        raise ValueError("numbers of a big-endian machine")
    tensors, keys = _value(file), _value(file)
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise ValueError("no dictionary of tensors")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name}, which is no tensor")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if any(tensor.storage != storages[tensor.storage.key] for tensor in tensors.values()):
        raise ValueError("a storage of two types or lengths")
    contents = {key: _contents(file, storages[key]) for key in keys}
    return {name: _view(tensor, contents) for name, tensor in tensors.items()}


def _contents(file: BytesIO, storage: Storage) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little", signed=True)
    data = file.read(max(0, count) * storage.dtype.itemsize)
    if count != storage.length or len(data) != count * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} of another length than it says")
    return np.frombuffer(data, storage.dtype)


def _view(tensor: Tensor, contents: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """A tensor as an array: every element lies within the storage, and there are no more of them than there."""
    storage, (_, _, shape, strides) = contents[tensor.storage.key], tensor
    count = 1
    for size in shape:  # not math.prod: it would multiply out what a file made up
        count = min(count * size, storage.size + 1)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if count > storage.size or (count and last >= storage.size) or tensor.offset > storage.size:
        raise ValueError(f"a tensor {shape} that reaches out of its storage of {storage.size}")
    steps = [stride * storage.itemsize if count else 0 for stride in strides]
    start = storage[tensor.offset :]
    return np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False)


def _value(file: BytesIO) -> Any:
    """One pickle. Of the operations of ``pickle``, those that a dictionary of tensors needs."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "STOP":
                return stack.pop()
            case "PROTO":
                pass
            case name if name in PLAIN:
                stack.append(argument)
            case name if name in MADE:
                stack.append(MADE[name]())
            case "GLOBAL":
                stack.append(_allowed(argument))
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack[-int(name[-1]) :] = [tuple(stack[-int(name[-1]) :])]
            case "APPEND":
                item = stack.pop()
                _a(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _a(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _a(dict, stack[-1])[_a(str, key)] = value
            case "SETITEMS":
                items = since_mark()
                keys = [_a(str, key) for key in items[::2]]
                _a(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case "REDUCE":
                arguments, named = stack.pop(), stack.pop()
                stack.append(_made(named, arguments))
            case "BUILD":
                stack.pop()  # versions of the modules that the tensors are of
            case name:
                raise ValueError(f"the operation {name}")
    raise ValueError("a pickle without an end")


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, Name):
        raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _allowed(name: str) -> Name:
    if name not in (DICTIONARY, TENSOR, *TYPES):
        raise ValueError(f"{name!r}, which is no part of a tensor")
    return Name(name)


def _storage(word: Any, name: Any, key: Any, device: Any, length: Any, view: Any) -> Storage:
    if word != "storage" or view is not None or not isinstance(name, Name):
        raise ValueError("a storage of another kind")
    return Storage(_a(str, key), TYPES[name], _natural(length))


def _made(named: Any, arguments: Any) -> dict[str, Any] | Tensor:
    """What a name of the file stands for: an empty dictionary, or a tensor."""
    if not isinstance(named, Name) or named in TYPES:
        raise ValueError(f"a call of {type(named).__name__}")
    if named == DICTIONARY:
        if arguments != ():
            raise ValueError("a dictionary that is made of something")
        return {}
    storage, offset, shape, strides, *_ = _a(tuple, arguments)
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if len(_a(tuple, shape)) != len(_a(tuple, strides)) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} dimensions and {len(strides)} strides")
    return Tensor(storage, _natural(offset), tuple(map(_natural, shape)), tuple(map(_natural, strides)))


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} in place of a whole number")
    return value
