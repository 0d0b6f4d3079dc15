"""verify and prune: what is wrong is named, and what nothing refers to can be removed."""

import json
import os
from pathlib import Path

from conftest import Project, store_of, write_photos


def test_verify_on_a_whole_cache(project: Project) -> None:
    outcome = project.headstart("verify")
    assert outcome.code == 0 and "3 shards with 40 rows, 2 heads: 0 problems" in outcome.out


def test_verify_names_a_changed_model_a_changed_result_and_a_changed_spec(project: Project) -> None:
    model = project.artifacts / "heads" / "ridge" / "model.skops"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    result = project.artifacts / "heads" / "logreg" / "result.json"
    result.write_text(result.read_text().replace('"seed": 0', '"seed": 1'))
    store_of(project).create(store_of(project).spec | {"base": "VGG19"})
    outcome = project.headstart("verify")
    assert outcome.code == 1 and "3 heads" not in outcome.out
    assert f"{model}: its digest does not match; delete {model.parent} and run `make heads`" in outcome.out
    assert "heads/logreg: expected a whole head, found none or a damaged result.json" in outcome.out
    assert outcome.out.count("belongs to another base") == 3


def test_prune_leaves_a_configured_store_whose_shards_are_all_damaged(project: Project) -> None:
    """What is left of them is kept until their images are extracted again, which removes it."""
    shards = sorted(store_of(project).folder.glob("shard-*.h5"))
    for path in shards:
        path.write_bytes(path.read_bytes()[:-100])
    assert project.headstart("verify").code == 1 and len(store_of(project)) == 0
    assert "nothing to remove" in project.headstart("prune").out
    assert "not in use" not in project.headstart("status").out
    assert project.make("features").extracted == 40
    assert "nothing to remove" in project.headstart("prune").out


def test_prune_finds_nothing_in_a_tidy_cache(project: Project) -> None:
    assert "nothing to remove" in project.headstart("prune").out
    assert "not in use" not in project.headstart("status").out


def test_prune_shows_and_removes_what_no_configuration_refers_to(project: Project) -> None:
    first = store_of(project).folder
    project.edit("input_size = 32", "input_size = 40")
    text = project.config.read_text()
    project.config.write_text(text[: text.index("[heads.ridge]")])
    assert project.make("report").code == 0
    for path in sorted(project.photos.glob("cat/*"))[:5]:
        path.unlink()
    (first / ".tmp-1-ab-shard-00009.h5").write_bytes(b"half")
    (first / "shard-00000.h5.damaged").write_bytes(b"bad")
    assert "not in use by this configuration, see prune" in project.headstart("status").out
    before = {path: path.stat().st_size for path in project.artifacts.rglob("*") if path.is_file()}

    shown = project.headstart("prune")
    assert shown.code == 0
    assert f"{first}: features of no configured base" in shown.out
    assert f"{project.artifacts}/heads/ridge: a head that is not configured" in shown.out
    assert "5 rows of images that are gone" in shown.out
    assert "can be removed: headstart prune --yes" in shown.out
    assert {path: path.stat().st_size for path in before} == before

    assert project.headstart("prune", "--yes").code == 0
    assert not first.exists() and not (project.artifacts / "heads" / "ridge").exists()
    assert len(store_of(project)) == 35 and store_of(project).verify() == {}
    assert "nothing to remove" in project.headstart("prune").out
    # So the one does not send the reader to the other for nothing.
    assert "not in use" not in project.headstart("status").out
    outcome = project.make("report")
    assert outcome.extracted == 0 and outcome.code == 0


def test_prune_spares_what_another_configuration_in_the_folder_uses(project: Project) -> None:
    other = project.folder / "other.toml"
    other.write_text(project.config.read_text())
    text = project.config.read_text().replace("input_size = 32", "input_size = 40")
    project.config.write_text(text[: text.index("[heads.ridge]")])
    assert "nothing to remove" in project.headstart("prune").out
    other.write_text("[data]\nroot = 3\n")
    outcome = project.headstart("prune", "--yes")
    assert outcome.code == 1 and "prune would not know what it refers to" in outcome.out
    assert store_of(project).folder.exists()
    (project.folder / "unrelated.toml").write_text("[tool]\nx = 1\n")
    other.unlink()
    assert "features of no configured base" in project.headstart("prune").out


def test_prune_spares_a_configured_store_without_rows(project: Project) -> None:
    """As it is while its first shard is extracted, or when all of them were set aside as damaged."""
    store = store_of(project)
    for shard in store.shards():
        shard.rename(f"{shard}.damaged")
    assert "nothing to remove" in project.headstart("prune", "--yes").out
    assert len(list(store.folder.glob("*.damaged"))) == 3 and store.spec_is_whole
    assert "not in use" not in project.headstart("status").out


def test_rows_are_kept_while_the_images_are_elsewhere(project: Project) -> None:
    project.photos.rename(project.folder / "moved")
    manifest = project.artifacts / "manifest.json"
    assert json.loads(manifest.read_text())["layout"] == "classes"
    assert "nothing to remove" in project.headstart("prune").out
    write_photos(project.photos, {"cat": 20, "dog": 20}, first=8000)
    assert "40 rows of images that are gone" in project.headstart("prune").out


def test_rows_are_kept_while_a_folder_cannot_be_looked_into(project: Project) -> None:
    for path in sorted(project.photos.glob("cat/*"))[:5]:
        path.unlink()
    (project.photos / "cat" / "away.png").symlink_to("/mnt/not/mounted.png")
    assert "nothing to remove" in project.headstart("prune").out


def test_prune_leaves_what_a_living_process_is_writing(project: Project) -> None:
    (project.artifacts / f".tmp-{os.getpid()}-ab-manifest.json").write_text("half")
    (project.artifacts / ".tmp-999999999-ab-manifest.json").write_text("half")
    out = project.headstart("prune").out
    assert ".tmp-999999999-ab-manifest.json: a temporary file of a killed run" in out and str(os.getpid()) not in out


def test_a_split_as_arrays(project: Project) -> None:
    from cache import Manifest

    manifest = Manifest.load(project.artifacts / "manifest.json")
    X, y = store_of(project).arrays(manifest, "train")
    records = [record for record in manifest.records if record.split == "train"]
    assert X.shape == (len(records), 1, 1, 512) and [manifest.classes[i] for i in y] == [r.label for r in records]
    assert Path(store_of(project).folder, "spec.json").exists()
