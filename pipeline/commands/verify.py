"""``headstart verify``: read everything in the cache, and check it; with ``--images``, compute some of it again."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cache.errors import CacheError, DataError
from cache.files import TEMPORARY_PREFIX
from cache.manifest import Manifest
from cache.store import FeatureStore
from pipeline.common.build import base_as_stored
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget, LayerTarget, ViewTarget
from pipeline.targets.graph import load_graph
from stages.audit.results import read_audit
from stages.data.views import View
from stages.export.spec import ABOUT, EXPORTS, read_about
from stages.heads.results import damaged_files, read_result, read_sweep
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase
    from stages.extract.recheck import Rechecked


def verify_lines(config: Config, progress: Progress, images: bool) -> Iterator[tuple[str, bool]]:
    """What is wrong, a line each, and with ``images`` a line for each layer; each with whether that is right.

    Raises DataError where the images are not here, and BaseError for a base that cannot be built.
    """
    yield from ((line, False) for line in _problems(config, progress))
    if images:
        yield from _compared_with_images(config, progress)


def _problems(config: Config, progress: Progress) -> list[str]:
    """Read every store, every head and the manifest, and check them; returns what is wrong, a line each."""
    folder = config.cache.dir
    wrong: list[str] = []
    shards = rows = 0
    for path in sorted((folder / "features").glob("*/")):
        store = FeatureStore(path)
        before = store.set_aside()
        wrong += [f"damaged: {reason}" for reason in store.verify().values()]
        wrong += [f"damaged: {path / name}: set aside before; run `make features`" for name in before]
        shards, rows = shards + len(store.shards()), rows + len(store)
    heads = sorted((folder / "heads").glob("*/"))
    for path in heads:
        if (result := read_result(path)) is None:
            found = [f"{path}: expected a whole head, found none or a damaged result.json"]
        else:
            found = [f"{path / name}: its digest does not match" for name in damaged_files(path, result)]
        wrong += [f"damaged: {problem}; delete {path} and run `make heads`" for problem in found]
    for path in sorted((folder / "sweeps").glob("*/result.json")):
        if read_sweep(path.parent) is None:
            wrong.append(f"damaged: {path}: expected the result of a sweep, found it changed; run `make sweep`")
    for path in sorted((folder / "audit").glob("*/result.json")):
        audit = read_audit(path.parent)
        damaged = damaged_files(path.parent, audit) if audit else ["result.json"]
        wrong += [
            f"damaged: {path.parent / name}: expected a file of an audit, found it changed; delete {path.parent} and run "
            "`make audit`"
            for name in damaged
        ]
    for path in sorted((folder / EXPORTS).glob("*/")):
        if path.name.startswith(TEMPORARY_PREFIX):
            continue
        about = read_about(path)
        damaged = damaged_files(path, about) if about else [ABOUT]
        wrong += [
            f"damaged: {path / name}: expected a file of an export, found it changed or gone; delete {path} and run `headstart export`"
            for name in damaged
        ]
    if (folder / "manifest.json").exists():
        try:
            Manifest.load(folder / "manifest.json")
        except CacheError as error:
            wrong.append(f"damaged: {error}; it is written anew where the images are")
    there = f"{counted(shards, 'shard')} with {counted(rows, 'row')}, {counted(len(heads), 'head')}"
    progress.say(f"verify: {there}: {counted(len(wrong), 'problem')}")
    return wrong


def _compared_with_images(config: Config, progress: Progress) -> Iterator[tuple[str, bool]]:
    """Compute some rows of each store of the configuration again; gives a line for each layer and view, and whether it is right."""
    graph = load_graph(config, progress=progress)
    if not graph.images_here:
        raise DataError(f"{config.data.root}: expected the images, found none; run verify --images where they are")
    for target in graph.bases.values():
        passes = {each.view: _filled(each.layers) for each in (ViewTarget(None, target.layers), *target.views)}
        for view, stores in passes.items():
            for layer in target.spec.cuts:
                if layer not in stores:
                    yield f"{_name(target, layer, view)}: nothing is stored yet", True
        if not any(passes.values()):
            continue
        from stages.extract.recheck import recheck

        layers = [layer for layer in target.spec.cuts if any(layer in stores for stores in passes.values())]
        base = base_as_stored(target, progress, layers)
        for view, stores in passes.items():
            for layer, found in recheck(
                stores, graph.manifest.by_digest, config.data.root, base, progress, view
            ).items():
                yield _words(_name(target, layer, view), stores[layer], base, found)


def _filled(layers: Sequence[LayerTarget]) -> dict[str, FeatureStore]:
    """The stores of layers that have rows, by layer."""
    return {each.layer: each.store for each in layers if each.store is not None and len(each.store)}


def _words(name: str, store: FeatureStore, base: "FrozenBase", found: "Rechecked") -> tuple[str, bool]:
    from stages.extract.drift import tolerance_of, who_differs

    tolerance = tolerance_of(store, base)
    if not found.rows:
        return f"{name}: none of the {len(store):,} images that are stored can be read here, so nothing is known", False
    if found.largest <= tolerance:
        return (
            f"{name}: {found.rows:,} of {len(store):,} rows computed again from the images; the largest relative error is "
            f"{found.largest:.3%}, at most {tolerance:.1%} is expected"
        ), True
    return (
        f"wrong: {name}: {store.folder}: {who_differs(store, base)} by {found.largest:.2%} ({found.path}), expected at most "
        f"{tolerance:.1%}; extract anew into another cache.dir, as heads that were trained on these features are wrong, too"
    ), False


def _name(target: BaseTarget, layer: str, view: View | None) -> str:
    name = f"{target.spec.name if target.name == 'base' else target.name}, {layer}"
    return f"{name}, view {view.number}" if view else name
