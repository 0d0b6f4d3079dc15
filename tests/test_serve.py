"""`headstart serve` without the server: what is computed in batches, what is refused, and which heads there are. tests/extras/test_serving.py asks it
over HTTP and in a browser.
"""

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Project, failed, write_image
from hypothesis import given
from hypothesis import strategies as st
from test_images import bomb

from cache.errors import HeadError
from pipeline.commands.predict import predicted
from pipeline.commands.serve import _is_loopback
from pipeline.common import served as loading
from pipeline.common.served import ServedProject
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.data.images import BadImageError
from stages.heads.train import load_head
from stages.progress import SILENT
from stages.search.index import Index
from stages.serve.guard import check_name, check_site
from stages.serve.ladder import RUNGS, parts
from stages.serve.limits import RefusedError
from stages.serve.served import Asked, Served, answer
from stages.serve.told import prepared, told, told_in_detail
from stages.serve.worker import Worker


@given(st.integers(1, 40), st.dictionaries(st.sampled_from(RUNGS), st.floats(0.01, 10), min_size=1))
def test_images_are_parted_into_the_batches_that_cost_least(n: int, costs: dict[int, float]) -> None:
    found = parts(n, costs)
    assert sum(found[:-1]) < n <= sum(found) and found == sorted(found, reverse=True)
    total = sum(costs[size] for size in found)
    for size, cost in costs.items():
        assert total <= cost * -(-n // size) + 1e-9, "no better than batches of one size"
    assert parts(n, {}) == [n]


def test_few_images_are_one_batch_where_that_costs_less() -> None:
    on_a_gpu = {1: 1.0, 4: 1.1, 8: 1.2, 16: 1.5, 32: 2.0}
    assert [parts(n, on_a_gpu) for n in (1, 2, 9, 20)] == [[1], [4], [16], [32]]
    on_a_slow_processor = {size: size + 0.1 for size in RUNGS}
    assert parts(7, on_a_slow_processor) == [4, 1, 1, 1]


@pytest.fixture(scope="module")
def served(built: Project) -> ServedProject:
    return ServedProject(built.config, SILENT)


def asked(head: Served, path: Path, detailed: bool = False) -> tuple[Asked, dict]:
    upload = prepared(path.read_bytes(), head.specs(detailed), 10**6, detailed)
    size = upload.picture.shape[:2] if upload.picture is not None else None
    one = Asked(head, upload.images, upload.digest, size)
    answer([one])
    found = one.answer.result(0)
    out = told(head, found, None, 0.0)
    return one, out | (told_in_detail(head, found, upload) if detailed else {})


def test_it_says_what_predict_says_in_batches_of_several_heads(
    built: Project, served: ServedProject, tmp_path: Path
) -> None:
    files = [write_image(tmp_path / f"{i}.jpg", 100 + i, (40 + 7 * i, 30)) for i in range(11)]
    graph = load_graph(load_config(built.config))
    many: list[Asked] = []
    for name in ("logreg", "ridge"):
        head = served.load(name)
        many += [Asked(head, prepared(path.read_bytes(), head.specs(False), 10**6, False).images) for path in files]
    answer(many[::2] + many[1::2])
    for name, some in (("logreg", many[:11]), ("ridge", many[11:])):
        target = graph.heads[name]
        expected = predicted(graph, target, load_head(target.folder), files, SILENT)
        for one, each in zip(some, expected, strict=True):
            np.testing.assert_allclose(one.answer.result(0).probabilities, each.probabilities, atol=1e-5)
    assert served.load("logreg").ladders["base"] is served.load("ridge").ladders["base"], "heads share a base"


@pytest.mark.parametrize("name", ["logreg", "ridge"])
def test_details_of_an_image_of_the_data(built: Project, served: ServedProject, name: str) -> None:
    _, out = asked(served.load(name), built.photos / "cat" / "cat3.png", detailed=True)
    assert out["same_file"]["path"] == "cat/cat3.png"
    assert (
        out["map"]["method"] == "exact"
        and out["map"]["class"] == out["label"]
        and out["map"]["image"].startswith("data:image/jpeg")
    )
    assert len(out["nearest"]) == 6 and {near["split"] for near in out["nearest"]} == {"train"}
    assert "cat/cat3.png" not in [near["path"] for near in out["nearest"]]
    similar = [near["similarity"] for near in out["nearest"]]
    assert similar == sorted(similar, reverse=True) and all(near["image"] for near in out["nearest"])


def test_below_the_threshold_it_has_no_label(served: ServedProject, tmp_path: Path) -> None:
    head = served.load("logreg")
    one, out = asked(head, write_image(tmp_path / "new.png", 7))
    p = out["probabilities"][out["label"]]
    assert list(out["probabilities"].values()) == sorted(out["probabilities"].values(), reverse=True)
    unsure = told(head, one.answer.result(0), 0.6, p + 1e-6)
    assert unsure["label"] is None and not unsure["sure"] and unsure["most_probable"] == out["label"]
    assert told(head, one.answer.result(0), 0.6, p)["label"] == out["label"]
    assert 0 < head.threshold(0.6) <= 1
    with pytest.raises(HeadError, match="validation images can show"):
        head.threshold(0.9999)


def test_what_is_no_image_or_too_large_is_refused_with_a_reason(served: ServedProject, tmp_path: Path) -> None:
    specs = served.load("logreg").specs(True)
    whole = write_image(tmp_path / "whole.jpg", 1, (200, 100)).read_bytes()
    for data, reason in (
        (bomb(40_000), "more pixels than the limit of 20,000"),
        (
            whole.replace(b"\xff\xc0\x00\x11\x08\x00\x64\x00\xc8", b"\xff\xc0\x00\x11\x08\x27\x10\x27\x10"),
            "10000×10000 pixels, more than the limit of 20,000",
        ),
        (b"no image", "not an image that can be read"),
        (whole[:-300], "damaged: "),
        (b"", "the file is empty"),
    ):
        with pytest.raises(BadImageError, match=reason):
            prepared(data, specs, 20_000, True)
    assert prepared(whole, specs, 20_000, True).picture is not None


def test_what_waits_is_one_batch(served: ServedProject, tmp_path: Path) -> None:
    head, worker = served.load("logreg"), Worker()
    upload = prepared(write_image(tmp_path / "new.png", 8).read_bytes(), head.specs(False), 10**6, False)
    ladder, sizes = head.ladders["base"], []
    base = ladder._of(RUNGS[-1])

    def noting(images: np.ndarray, padded_to: int | None = None) -> dict:
        sizes.append(padded_to)
        return base(images, padded_to)  # type: ignore[call-arg]

    noting.batch_size, noting.takes_any_batch = base.batch_size, True  # type: ignore[attr-defined, union-attr]
    ladder._built[RUNGS[-1]] = noting  # type: ignore[assignment]
    ladder._seconds = {size: size + 1.0 for size in RUNGS}
    try:
        go = threading.Event()
        waits = worker.call(go.wait)
        some = [worker.ask(Asked(head, upload.images)) for _ in range(9)]
        assert some[4].cancel()  # who asked is gone
        broken = worker.ask(Asked(head, {"base": upload.images["base"][:5]}))
        go.set()
        assert waits.result(150)
        # An image of another size spoils the batch that it is in, and nothing after it.
        for future in [*some[:4], *some[5:], broken]:
            assert isinstance(future.exception(150), ValueError)
        assert sizes == [] and some[4].cancelled()
        go.clear()
        waits = worker.call(go.wait)
        some = [worker.ask(Asked(head, upload.images)) for _ in range(8)]
        go.set()
        rows = [future.result(150).probabilities for future in some]
        assert sizes == [8]
        # What is called later waits for those that were there before it.
        go.clear()
        waits = worker.call(go.wait)
        before = worker.ask(Asked(head, upload.images))
        called = worker.call(before.done)
        go.set()
        assert called.result(150)
        np.testing.assert_allclose(rows, [rows[0]] * 8, atol=1e-5)
        assert isinstance(worker.call(lambda: 1 / 0).exception(150), ZeroDivisionError)
        go.clear()
        waits = worker.call(go.wait)
        late = worker.ask(Asked(head, upload.images))
        threading.Timer(0.05, go.set).start()
        assert worker.end(150)
        assert late.done()
    finally:
        ladder._built[RUNGS[-1]] = base


def test_a_head_that_is_trained_again_or_removed_is_seen(project: Project, tmp_path: Path) -> None:
    served = ServedProject(project.config, SILENT)
    assert served.ready(None) is None
    first, best = served.load("ridge"), served.load(None)
    assert served.ready("ridge") is first and served.ready(None) is best
    project.config.touch()
    assert served.ready("ridge") is None and served.load("ridge") is first, "what is as it was is kept"
    photo = write_image(tmp_path / "new.png", 9)
    before = asked(served.load("logreg"), photo)[1]["probabilities"]
    project.edit('estimator = "LogisticRegression"', 'estimator = "LogisticRegression"\nparams = { C = 1e-4 }')
    with pytest.raises(HeadError, match="head 'logreg' was trained with another configuration"):
        served.load("logreg")
    assert [head["name"] for head in served.told()["heads"] if head["problem"]] == ["logreg"]
    assert project.headstart("heads").trained == ["logreg"]
    served.told()  # as the page asks when its window is looked at again
    assert served.ready("logreg") is None
    assert asked(served.load("logreg"), photo)[1]["probabilities"] != before
    (project.photos / "cat" / "cat1.png").rename(project.photos / "cat" / "named.png")
    project.headstart("status")
    assert served.ready("ridge") is None, "a command looked at the images"
    paths = {record.path for record in served.load("ridge").known.values()}
    assert "cat/named.png" in paths and "cat/cat1.png" not in paths and served.load("ridge").warnings == []
    # Labels changed: as `predict`, it answers with a warning.
    (project.photos / "cat" / "named.png").rename(project.photos / "dog" / "cat1.png")
    project.headstart("status")
    assert "head ridge is not up to date" in served.load("ridge").warnings[0]
    whole = project.config.read_text()
    project.config.write_text(whole + "[heads.")
    assert served.load("ridge") and "what was read before is served" in served.told()["warnings"][0]
    project.config.write_text(whole)
    (project.artifacts / "heads" / "ridge" / "result.json").unlink()
    for _ in range(2):
        assert served.ready("ridge") is None
        with pytest.raises(HeadError, match="head 'ridge' is not trained yet; run `make heads`"):
            served.load("ridge")
    with pytest.raises(HeadError, match="no head 'nope'"):
        served.load("nope")
    json.dumps(served.told())


def test_a_head_that_is_written_again_and_again_is_no_head_that_there_is_not(
    built: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedProject(built.config, SILENT)
    stamps = iter(range(1000))
    monkeypatch.setattr(served, "_stamp", lambda: (next(stamps),))
    with pytest.raises(RefusedError, match="head 'ridge' is being written again and again") as refused:
        served.load("ridge")
    assert refused.value.status == 503


def test_layers_of_a_base_have_indices_of_their_own(
    built: Project, served: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(loading, "extracted_layer", lambda _, base, layer: (base, layer, SimpleNamespace(folder=layer)))
    monkeypatch.setattr(Index, "read", lambda _, store: read.append(store.folder))
    graph = load_graph(load_config(built.config))
    for layer in ("first", "last", "first", "last"):
        served._index(graph, "base", layer)
    assert read == ["first", "last"]


@pytest.mark.parametrize(
    ("host", "is_taken"),
    [
        ("127.0.0.1:8770", True),
        ("192.168.1.7:8770", True),
        ("[::1]:8770", True),
        ("LocalHost", True),
        ("box:8770", True),
        ("evil.example:8770", False),
        ("evil.example, 127.0.0.1", False),  # what cannot be read is no reason to take another name for it
        ("evil example@127.0.0.1", False),
        ("box.evil.example", False),
        ("", False),
    ],
)
def test_it_is_asked_under_the_names_of_this_machine_alone(host: str, is_taken: bool) -> None:
    if is_taken:
        check_name({"host": host}, {"localhost", "box"})
    else:
        with pytest.raises(RefusedError, match="expected a request to an address or box, localhost"):
            check_name({"host": host}, {"localhost", "box"})


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://Box:8770"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "http://box:9000"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_it_does_nothing_for_pages_of_other_sites(headers: dict[str, str], is_taken: bool) -> None:
    if is_taken:
        check_site({"host": "box:8770", **headers})
    else:
        with pytest.raises(RefusedError, match="expected a request of headstart's own page"):
            check_site({"host": "box:8770", **headers})


def test_which_hosts_only_this_machine_can_reach() -> None:
    assert [_is_loopback(host) for host in ("Localhost", "127.0.0.1", "::1")] == [True] * 3
    assert not _is_loopback("0.0.0.0") and not _is_loopback("box")


def test_it_says_what_it_lacks(built: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert "install headstart[serve]" in failed(built.headstart("serve"))
