"""Log lines as people read them."""

from lingbi.logs import readable


def test_logs_for_people():
    line = '{"time": "T", "level": "ERROR", "logger": "a", "message": "b", "exc_info": "Traceback"}'
    assert readable(line) == "T ERROR a: b\nTraceback"
    for other in ("plain words", "[1]", "{}"):
        assert readable(other) == other
