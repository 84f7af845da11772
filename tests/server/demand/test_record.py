"""What is remembered of wakes from one process of a worker to the next."""

from lingbi.demand.record import UNKNOWN_S, Record


def test_counts_outlive_the_processes_and_a_broken_file_begins_anew(tmp_path, caplog):
    file = tmp_path / "run/worker-0.wakes"
    assert Record(file).read().last_s == UNKNOWN_S
    Record(file).count_wake({"tower": 1.5, "probe": 0.5}, is_swap=True)
    Record(file).count_put_away("room")
    Record(file).count_wake({"tower": 1.0}, is_swap=False)
    found = Record(file).read()
    assert (found.wakes, found.swaps, found.put_away) == (2, 1, {"room": 1})
    assert found.seconds == {"tower": 2.5, "probe": 0.5} and found.last_s == 1.0
    file.write_text('{"wakes": ')
    assert Record(file).read().wakes == 0 and "begins anew" in caplog.text
