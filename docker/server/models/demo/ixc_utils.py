"""How 4khd sizes a picture: lmdeploy imports `HD_transform` from this file."""

import math

from PIL import Image

TILE = 336


def HD_transform(img, hd_num=25):
    """Resizes a picture so that it fills at most `hd_num` tiles of 336 x 336, then pads it with white to whole tiles."""
    width, height = img.size
    if width < height:
        turned = HD_transform(img.transpose(Image.Transpose.TRANSPOSE), hd_num)
        return turned.transpose(Image.Transpose.TRANSPOSE)
    ratio = width / height
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= hd_num:
        columns += 1
    new_width = columns * TILE
    new_height = max(1, int(new_width / ratio))
    return pad_to_tiles(img.resize((new_width, new_height), Image.Resampling.BILINEAR))


def pad_to_tiles(img):
    """Centres a picture vertically on white whose height is a multiple of a tile."""
    width, height = img.size
    whole = math.ceil(height / TILE) * TILE
    canvas = Image.new("RGB", (width, whole), (255, 255, 255))
    canvas.paste(img.convert("RGB"), (0, (whole - height) // 2))
    return canvas
