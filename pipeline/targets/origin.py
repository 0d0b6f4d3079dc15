"""What a head's features or images are, for its key; and where a head comes from that is trained beyond frozen features."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cache.files import digest_json
from pipeline.config.heads import HeadEntry
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget
from stages.bases.spec import joint_key
from stages.data.policy import DECODE, SQUASH
from stages.data.views import View
from stages.heads.tuned_spec import ON_IMAGES

if TYPE_CHECKING:
    from stages.heads.task import Origin


def base_key_of(config: Config, entry: HeadEntry, bases: Mapping[str, BaseTarget]) -> str | None:
    """The key of what a head is trained on: features and their views, or images and how views of them are drawn; None while that of its
    base is not known. An ensemble has an empty one.
    """
    base = bases.get(entry.base)
    if not isinstance(entry.spec, ON_IMAGES):
        return base.key(entry.layers, entry.spec.views) if base else ""
    key = base.key(entry.layers) if base else digest_json({"decode": DECODE["exact"], "resize": SQUASH.words})
    if key is None or not entry.spec.views:
        return key
    # Of the views by their numbers, as many as there are epochs.
    drawn = View(config.views.whole, config.views.seed, 0).identity()
    return joint_key([key, digest_json(drawn)])


def origin_of(config: Config, entry: HeadEntry, bases: Mapping[str, BaseTarget], images_here: bool) -> "Origin":
    """Where a head comes from. On images, its first epoch sees their first views."""
    from stages.heads.task import Origin

    base = bases.get(entry.base)
    recipe, seed = config.views.whole, config.views.seed
    return Origin(
        base.spec if base else None,
        base.weights if base else None,
        config.data.root if images_here else None,
        lambda epoch: View(recipe, seed, epoch + 1),
    )
