"""What is kept: digests, the manifest, shards and the feature store. Knows no Keras and no images."""

from cache.errors import CacheError, DataError, HeadstartError
from cache.manifest import ImageRecord, Manifest
from cache.store import FeatureStore

__all__ = ["CacheError", "DataError", "FeatureStore", "HeadstartError", "ImageRecord", "Manifest"]
