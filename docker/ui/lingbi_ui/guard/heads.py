"""What a file is, by its first bytes alone."""

from lingbi_pictures.formats import format_of, other_format
from lingbi_ui.images import OTHERS


def fault_of(head: bytes) -> str | None:
    """None for a picture that the page takes, else the name of the sentence that says what the file is."""
    return None if format_of(head) else OTHERS.get(str(other_format(head)), "picture_unreadable")
