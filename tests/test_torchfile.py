"""Files of PyTorch are read without PyTorch, and nothing that they name is ever called."""

import builtins
import os
import pickle
import struct
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import BaseError
from stages.bases.torchfile import MAGIC, VERSION, read_tensors

HEADER = [MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"int": 4}}]
EMPTY = b"ccollections\nOrderedDict\n)R"
Spec = tuple[str, int, Sequence[int], Sequence[int]]  # the storage's key, offset, shape, strides


def text(value: str) -> bytes:
    return b"X" + struct.pack("<i", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, length: int, kind: str = "FloatStorage") -> bytes:
    return b"((" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(length) + b"NtQ"


def pickled(tensors: Mapping[str, Spec], lengths: Mapping[str, int], kind: str = "FloatStorage") -> bytes:
    """The pickle of a ``state_dict``, operation by operation as ``torch.save`` wrote it."""
    found = b"\x80\x02" + EMPTY + b"("
    for name, (key, offset, shape, strides) in tensors.items():
        found += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + storage(key, lengths[key], kind)
        found += number(offset) + numbers(shape) + numbers(strides) + b"\x89" + EMPTY + b"tR"
    return found + b"u."


def written(
    path: Path, tensors: bytes, contents: Mapping[str, np.ndarray], lengths: Mapping[str, int] | None = None
) -> Path:
    parts = [pickle.dumps(each, 2) for each in HEADER] + [tensors, pickle.dumps(list(contents), 2)]
    for key, values in contents.items():
        parts += [struct.pack("<q", (lengths or {}).get(key, values.size)), values.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def one(path: Path, tensor: Spec, length: int) -> np.ndarray:
    """The only tensor of a file, whose storage counts from 0."""
    values = np.arange(length, dtype="<f4")
    return read_tensors(written(path, pickled({"x": tensor}, {"a": length}), {"a": values}))["x"]


def test_tensors_are_views_of_their_storages(tmp_path: Path) -> None:
    tensors: dict[str, Spec] = {
        "whole": ("a", 0, (2, 3), (3, 1)),
        "turned": ("a", 0, (3, 2), (1, 3)),
        "part": ("a", 4, (2,), (1,)),
        "scalar": ("b", 0, (), ()),
        "empty": ("b", 1, (0, 5), (5, 1)),
    }
    contents = {"b": np.array([7], "<f4"), "a": np.arange(6, dtype="<f4")}
    found = read_tensors(written(tmp_path / "w.pth", pickled(tensors, {"a": 6, "b": 1}), contents))
    assert list(found) == list(tensors)
    assert found["whole"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["part"].tolist() == [4, 5] and found["scalar"] == 7 and found["empty"].shape == (0, 5)
    assert not any(array.flags.writeable for array in found.values())


def test_whole_numbers(tmp_path: Path) -> None:
    tensors = pickled({"n": ("a", 0, (), ())}, {"a": 1}, "LongStorage")
    found = read_tensors(written(tmp_path / "w.pth", tensors, {"a": np.array([2**40])}))
    assert found["n"].dtype == np.int64 and found["n"] == 2**40


class Call:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, Any]:
        return self._call


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.exec])
def test_a_hostile_file_runs_nothing(tmp_path: Path, function: Any, protocol: int, place: int) -> None:
    """In any of the five pickles of a file, in any protocol of pickle."""
    trap = tmp_path / "trap"
    hostile = Call(function, f"touch {trap}" if function is os.system else f"open({str(trap)!r}, 'w')")
    pickle.loads(pickle.dumps(hostile, protocol))
    assert trap.exists(), "the trap works"
    trap.unlink()
    parts = [pickle.dumps(each, 2) for each in [*HEADER, {}, []]]
    parts[place] = pickle.dumps(hostile if place < 3 else {"x": hostile}, protocol)
    (tmp_path / "w.pth").write_bytes(b"".join(parts))
    with pytest.raises(BaseError, match="expected tensors as torch.save wrote them before PyTorch 1.6, found"):
        read_tensors(tmp_path / "w.pth")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        (b"cposix\nsystem\n(" + text("true") + b"tR.", "'posix system', which is no part of a tensor"),
        (b"ctorch\nFloatStorage\n)R.", "a call of Name"),
        (text("collections OrderedDict") + b")R.", "a call of str"),
        (EMPTY[:-2] + b"]\x85R.", "a dictionary that is made of something"),
        (b"(iposix\nsystem\n.", "the operation INST"),
        (b"cposix\nsystem\n)\x81.", "'posix system'"),
        (EMPTY[:-2] + b")\x81.", "the operation NEWOBJ"),
        (text("os") + text("system") + b"\x93.", "the operation STACK_GLOBAL"),
        (b"\x82\x01.", "the operation EXT1"),
        (b"Pkey\n.", "the operation PERSID"),
        (b"}" + EMPTY[:-2] + b"K\x01s.", "Name in place of str"),
        (EMPTY + b"}" + text("__setstate__") + b"cposix\nsystem\nsb.", "'posix system'"),
        (b"h\x05.", "found 5"),
        (b"r\xff\xff\xff\x7f.", "list index out of range"),
        (b"\x8a\xff.", "not enough data"),
        (b"}", "pickle exhausted before seeing STOP"),
        (b"}K\x01a.", "dict in place of list"),
        (b"K\x05.", "no dictionary of tensors"),
        (b"}" + text("k") + b"K\x01s.", "k, which is no tensor"),
        (b"}" + text("k") + b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))tRs.", "a tensor without a storage"),
    ],
)
def test_operations_that_no_dictionary_of_tensors_needs_are_refused(
    tmp_path: Path, operations: bytes, says: str
) -> None:
    path = written(tmp_path / "w.pth", b"\x80\x02" + operations, {})
    with pytest.raises(BaseError) as raised:
        read_tensors(path)
    assert says in str(raised.value) and str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("tensor", "length"),
    [
        (("a", 0, (2,), (2**62,)), 4),
        (("a", 2**62, (1,), (1,)), 4),
        (("a", 0, (2**31, 2**31, 4), (0, 0, 0)), 4),
        (("a", 0, (5,), (0,)), 4),
        (("a", 3, (2,), (1,)), 4),
        (("a", 0, (2,), (-1,)), 4),
        (("a", -1, (1,), (1,)), 4),
        (("a", 0, (-1,), (1,)), 4),
        (("a", 0, (1, 1), (1,)), 4),
        (("a", 0, (1,) * 33, (1,) * 33), 4),
        (("a", 0, (), ()), 0),
    ],
)
def test_a_tensor_that_reaches_out_of_its_storage_is_refused(tmp_path: Path, tensor: Spec, length: int) -> None:
    with pytest.raises(BaseError):
        one(tmp_path / "w.pth", tensor, length)


def test_storages_are_as_long_as_they_say(tmp_path: Path) -> None:
    tensors = pickled({"x": ("a", 0, (2,), (1,))}, {"a": 2})
    two, three = np.zeros(2, "<f4"), np.zeros(3, "<f4")
    for contents, lengths in (({"a": three}, {}), ({"a": two}, {"a": 2**60}), ({"a": two}, {"a": -2}), ({}, {})):
        with pytest.raises(BaseError):
            read_tensors(written(tmp_path / "w.pth", tensors, contents, lengths))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a pickle", pickle.dumps(3, 2)])
def test_another_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        BaseError, match=r"w\.pth: expected tensors as torch\.save wrote them before PyTorch 1\.6, found"
    ):
        read_tensors(tmp_path / "w.pth")


sizes = st.integers(0, 4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 12), sizes, st.lists(st.tuples(sizes, sizes), max_size=3))
def test_a_tensor_holds_what_its_strides_say_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, length: int, offset: int, axes: list[tuple[int, int]]
) -> None:
    shape, strides = [size for size, _ in axes], [stride for _, stride in axes]
    places = [
        offset + sum(i * stride for i, stride in zip(index, strides, strict=True))
        for index in product(*map(range, shape))
    ]
    path = tmp_path_factory.getbasetemp() / "strides.pth"
    fits = len(places) <= length and all(place < length for place in places) and offset <= length
    if fits:
        assert one(path, ("a", offset, shape, strides), length).ravel().tolist() == places
    else:
        with pytest.raises(BaseError):
            one(path, ("a", offset, shape, strides), length)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    tensors: dict[str, Spec] = {"x": ("a", 0, (2, 3), (3, 1)), "y": ("b", 1, (2,), (1,))}
    contents = {"a": np.zeros(6, "<f4"), "b": np.zeros(3, "<f4")}
    whole = bytearray(written(path, pickled(tensors, {"a": 6, "b": 3}), contents).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        assert all(isinstance(array, np.ndarray) for array in read_tensors(path).values())
    except BaseError as error:
        assert "\n" not in str(error)
