"""Remembers what the vision tower made of a picture, by the picture's content, within a bound of memory."""

import hashlib
import threading
from typing import TYPE_CHECKING

from cachetools import LRUCache
from PIL import Image

if TYPE_CHECKING:  # commands that decode pictures load no torch
    from torch import Tensor

FILE_HASH = "file_hash"  # an attribute that we give to pictures


def remember_file(image: Image.Image, data: bytes) -> None:
    """Note on a picture the file that it was decoded from: a hash of that takes a tenth of the time of one of its pixels."""
    setattr(image, FILE_HASH, hashlib.sha256(data).digest())


def content_hash(image: Image.Image) -> bytes:
    """SHA-256 of the file that a picture was decoded from or, where nobody noted that, of its size and pixels."""
    noted: bytes | None = getattr(image, FILE_HASH, None)
    if noted:
        return noted
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return digest.digest()


class FeatureCache:
    """The most recently used features; all together take at most `limit_bytes` of host memory. 0: keeps none."""

    def __init__(self, limit_bytes: int):
        self._features = LRUCache(limit_bytes, getsizeof=lambda features: features.nbytes)
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
        """Keep features, at the cost of those that were not asked for longest; larger than the bound: not kept."""
        with self._lock:
            if features.nbytes <= self._features.maxsize:
                self._features[key] = features
