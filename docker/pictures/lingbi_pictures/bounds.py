"""The bounds on a picture besides its bytes and pixels, which are settings.

Pillow reads the parts of a file in Python, one after the other, and some of them in quadratic time; so their number is
bounded before Pillow sees the file. Each number is several times what cameras and programs write.
"""

MAX_ASPECT = 200
# Of a JPEG; encoders write about ten.
MAX_SCANS = 100
# Segments of a JPEG, chunks of a PNG or WebP, blocks of a GIF's extensions. A file of 20 MiB needs a few thousand.
MAX_SEGMENTS = 10_000
# Blocks of a GIF's pixels: 255 bytes each in whatever programs write, so that 20 MiB have 82 000.
MAX_DATA_BLOCKS = 200_000
# Bytes between the segments of a JPEG, which Pillow steps over one by one.
MAX_FILL_BYTES = 65_536
# EXIF data and Photoshop's resources of a JPEG, extensions of a GIF. Cameras write 64 KiB of them at most.
MAX_METADATA_BYTES = 1 << 20
# What the entries of EXIF data hold together: they may all point to the same bytes, and Pillow copies them for each.
MAX_ENTRIES_BYTES = 8 << 20
