"""By what the cache of features knows an image."""

from PIL import Image

from lingbi.vision.cache import content_hash, remember_file
from tests.server.vision.drawing import noise


def test_the_content_decides_not_the_file():
    wide, tall = Image.new("RGB", (2, 8)), Image.new("RGB", (8, 2))
    assert content_hash(wide) == content_hash(wide.copy()) != content_hash(tall)


def test_an_image_from_the_door_is_known_by_its_file():
    """Its own pixels are hashed only where nobody noted the file, as when another program opened it."""
    first, second, other = noise(8, 8), noise(8, 8), noise(8, 8)
    remember_file(first, b"a file")
    remember_file(second, b"a file")
    remember_file(other, b"another file")
    assert content_hash(first) == content_hash(second) != content_hash(other)
    assert content_hash(first) != content_hash(first.copy()) == content_hash(noise(8, 8))
