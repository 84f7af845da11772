"""The page's fuzzing in short, and that it can fail."""

from tests.load.fuzz_page import fuzz_page, stalls

BUSY_MS = 300  # of the processor's time at once, which nothing of the page's own takes; 114 were seen on a busy machine


def test_two_hundred_odd_requests(tmp_path):
    report = fuzz_page(200, tmp_path)
    assert sum(report["outcomes"].values()) == 200 and len(report["outcomes"]) > 4, report
    assert max(report["blocked_ms"], default=0) < BUSY_MS and report["grown_mib"] < 100, report


def test_a_stall_in_the_log_is_seen():
    assert stalls("DEBUG:    the loop was blocked for 140 ms\nINFO:     other") == [140]


def test_a_5xx_ends_the_run(tmp_path, monkeypatch):
    """Here that of a page whose server is away."""
    monkeypatch.setattr("tests.load.fuzz_page.READ", ("/health",))
    monkeypatch.setattr("tests.load.fuzz_page.FakeApi", Away)
    try:
        report = fuzz_page(2000, tmp_path)
    except AssertionError as error:
        assert "503" in str(error)
    else:
        raise AssertionError(report)


class Away:
    """No server at all."""

    url = "http://127.0.0.1:9"

    def stop(self) -> None:
        """There is nothing to stop."""
