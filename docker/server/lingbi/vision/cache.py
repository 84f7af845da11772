"""Caches the vision tower's features by the content of the image, within a limit of memory."""

import hashlib
import threading
from typing import TYPE_CHECKING

from cachetools import LRUCache
from PIL import Image

if TYPE_CHECKING:  # commands that decode images must not load torch
    from torch import Tensor

FILE_HASH = "file_hash"  # an attribute that we add to images


def remember_file(image: Image.Image, data: bytes) -> None:
    """Store the hash of its file on an image: hashing the file takes a tenth of the time of hashing the pixels."""
    setattr(image, FILE_HASH, hashlib.sha256(data).digest())


def content_hash(image: Image.Image) -> bytes:
    """SHA-256 of the file that an image was decoded from or, if that is unknown, of its size and pixels."""
    noted: bytes | None = getattr(image, FILE_HASH, None)
    if noted:
        return noted
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return digest.digest()


class FeatureCache:
    """The most recently used features, in at most `limit_bytes` of host memory; a limit of 0 keeps none."""

    def __init__(self, limit_bytes: int):
        self._features: LRUCache[bytes, Tensor] = LRUCache(limit_bytes, getsizeof=lambda features: features.nbytes)
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the features held."""
        return int(self._features.currsize)

    def get(self, key: bytes) -> "Tensor | None":
        """The features [tokens, hidden], or None."""
        with self._lock:
            features: Tensor | None = self._features.get(key)
            self.hits, self.misses = self.hits + (features is not None), self.misses + (features is None)
            return features

    def put(self, key: bytes, features: "Tensor") -> None:
        """Keep features and evict the least recently used ones; features larger than the limit are not kept."""
        with self._lock:
            if features.nbytes <= self._features.maxsize:
                self._features[key] = features
