"""The audit of the images on a base: its key, what is on disk, and why it is stale."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.files import digest_json
from cache.manifest import Manifest
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget, LayerTarget
from pipeline.targets.reasons import audit_reasons
from stages.audit.results import audit_parts, read_audit


@dataclass(frozen=True)
class AuditTarget:
    """The audit of the images on the last layer of a base: its folder, what its key is made of, and its result if it is whole."""

    base: BaseTarget
    manifest: Manifest
    folder: Path
    images_here: bool
    result: dict[str, Any] | None

    @property
    def layer(self) -> LayerTarget:
        return self.base.layers[-1]

    @cached_property
    def parts(self) -> dict[str, Any]:
        return audit_parts(self.layer.key or "", self.manifest)

    @property
    def key(self) -> str:
        return digest_json(self.parts)

    @property
    def done(self) -> dict[str, Any] | None:
        """Its result, where that is of the images and the base as they are."""
        return self.result if self.result and self.result["parts"] == self.parts else None

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why it is stale; empty where it is not."""
        if self.result is None:
            return ("never run",)
        if self.layer.key is None:
            return self.layer.reasons
        return audit_reasons(self.result, self.parts, self.images_here)

    @property
    def stale(self) -> bool:
        return bool(self.reasons)


def audit_target(config: Config, base: BaseTarget, manifest: Manifest, images_here: bool) -> AuditTarget:
    """The audit on a base, and its result."""
    folder = config.cache.dir / "audit" / base.name
    return AuditTarget(base, manifest, folder, images_here, read_audit(folder))
