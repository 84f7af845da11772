"""A kill under load, in a short run: what clients saw is what was counted (the long one: python -m tests.load.ledger)."""

from lingbi.accounts.entries import Counts
from tests.load import ledger_size
from tests.load.ledger import Asked, faults, options_of, run


def test_what_clients_saw_is_counted_though_the_worker_is_killed(tmp_path):
    options = options_of(["--kills", "1", "--cut", "0", "--apart", "3", "--clients", "4", "--keys", "400"])
    report, found = run(tmp_path, f"sqlite:///{tmp_path}/state/accounts/accounts.db", None, options)
    assert not found, found
    assert report["kills"] == 1 and report["statuses"].get("200") and report["counted"] == report["told"] != [0, 0]


WHOLE = Asked("k", "whole", 200, {"prompt_tokens": 3, "completion_tokens": 2})
BROKEN = Asked("b", "stream", 200, None, [1.0, 2.0, 9.9], broken_at=10.0)


def test_what_is_lost_or_doubled_is_seen():
    """The judge of the runs: it sees a row too few, one too many, and other counts."""
    right = {("k", 200): Counts(1, 3, 0, 2, 0, 5), ("b", 502): Counts(1, 9, 0, 2, 0, 5)}
    assert faults([WHOLE, BROKEN], right, [10.0]) == []
    for wrong in (
        {("k", 200): Counts(2, 6, 0, 4, 0, 5)},
        {("k", 200): Counts(1, 3, 0, 1, 0, 5)},
        {("k", 200): Counts(1, 3, 1, 2, 0, 5)},
        {("k", 502): Counts(1)},
        {("b", 502): Counts(1, 9, 0, 1, 0, 5)},
        {("b", 502): Counts(2, 9, 0, 2, 0, 5)},
        {("x", 200): Counts(1)},
    ):
        assert len(faults([WHOLE, BROKEN], right | wrong, [10.0])) == 1, wrong
    assert len(faults([WHOLE, BROKEN], {("b", 502): right["b", 502]}, [10.0])) == 1


def test_every_view_of_the_long_run_is_answered(any_database):
    address = any_database.render_as_string(hide_password=False).replace("+psycopg", "")
    assert (
        ledger_size.main(["--url", address, "--keys", "9", "--hours-days", "31", "--days", "60", "--rounds", "1"]) == 0
    )
