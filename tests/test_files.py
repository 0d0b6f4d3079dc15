"""Digests, canonical JSON, atomic replacement and locks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cache.files import (
    atomic_path,
    canonical_json,
    digest_json,
    lock,
    remove_temporaries,
    sha256_file,
    write_if_changed,
)
from cache.memo import StatMemo, stat_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_has_one_spelling_and_loses_nothing(value: object) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


def test_digests_are_pinned(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"headstart")
    assert sha256_file(tmp_path / "x") == "1166e1c1cbca82d193df7038d1c1183bc5a2f2cd66e0120be41ea54b49927f7d"
    assert digest_json({"b": [1, 2.5], "a": "é"}) == "1d5aa48ef9cd2b6be14efd77e6aa32fc7767713b66a7abf3c772a7863e7c199a"


def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix_and_the_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "deep" / "model.keras") as temporary:
        assert temporary.suffix == ".keras" and temporary.parent == tmp_path / "deep"
        temporary.write_text("whole")
    assert (tmp_path / "deep" / "model.keras").read_text() == "whole"


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cache.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n    t.write_text('half')\n    print('writing', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_writing_what_is_there_keeps_the_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert write_if_changed(path, "one")
    os.utime(path, (1, 1))
    assert not write_if_changed(path, "one")
    assert path.stat().st_mtime == 1
    assert write_if_changed(path, "two")
    assert path.stat().st_mtime > 1


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom cache.files import lock\n"
        "with lock(Path(sys.argv[1]), print):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    said: list[str] = []

    def waiting(line: str) -> None:
        said.append(line)
        process.kill()  # the kernel drops the lock of a dead process

    with lock(tmp_path, waiting):
        pass
    process.wait()
    assert f"waiting for process {process.pid} on " in said[0]


def memo_round(path: Path, file: Path) -> str | None:
    """One scan as ``stages.data.scan`` does it: what the memo knows of the file, before it is read where it must be."""
    memo = StatMemo(path)
    stat = stat_of(file.stat())
    known = memo.get("x", stat)
    if known is None:
        memo.put("x", stat, sha256_file(file))
    memo.save()
    return known


def test_the_memo_believes_an_old_file_and_rereads_a_racy_one(tmp_path: Path) -> None:
    """A file as young as the memo may change within the same tick of the clock, so it is read again."""
    memo, file = tmp_path / "memo.json", tmp_path / "x"
    file.write_text("one")
    assert memo_round(memo, file) is None
    assert memo_round(memo, file) is None  # too young to be believed
    old = time.time() - 60
    os.utime(file, (old, old))
    assert memo_round(memo, file) is None  # its time changed
    assert memo_round(memo, file) == sha256_file(file)


def test_the_memo_notices_size_time_and_inode(tmp_path: Path) -> None:
    memo, file = tmp_path / "memo.json", tmp_path / "x"
    old = time.time() - 60

    def write(text: str, name: Path = file) -> None:
        name.write_text(text)
        os.utime(name, (old, old))

    write("one")
    memo_round(memo, file)
    assert memo_round(memo, file) is not None
    write("longer")
    assert memo_round(memo, file) is None
    write("second", tmp_path / "other")
    os.replace(tmp_path / "other", file)  # same size, same time, another inode
    assert memo_round(memo, file) is None


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"version": 99}', '{"version": 1, "taken_ns": 5}'])
def test_a_broken_memo_costs_time_and_nothing_else(tmp_path: Path, content: str) -> None:
    memo, file = tmp_path / "memo.json", tmp_path / "x"
    file.write_text("one")
    memo.write_text(content)
    assert memo_round(memo, file) is None
