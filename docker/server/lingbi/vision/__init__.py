"""The picture path: pixels, the vision tower, its thread, and a memory of what it saw."""
