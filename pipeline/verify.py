"""``headstart verify``: read everything in the cache, and check it."""

from cache.errors import CacheError
from cache.manifest import Manifest
from cache.store import FeatureStore
from pipeline.config import Config
from stages.audit.results import read_audit
from stages.heads.results import damaged_files, read_result, read_sweep
from stages.progress import Progress


def problems(config: Config, progress: Progress) -> list[str]:
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
    if (folder / "manifest.json").exists():
        try:
            Manifest.load(folder / "manifest.json")
        except CacheError as error:
            wrong.append(f"damaged: {error}; it is written anew where the images are")
    progress.say(f"verify: {shards} shards with {rows:,} rows, {len(heads)} heads: {len(wrong)} problems")
    return wrong
