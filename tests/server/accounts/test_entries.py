"""Entries and their lines: what is written is read, what is no entry is refused, what runs moves when it ends otherwise."""

import pytest

from lingbi.accounts.entries import GOOD, Counts, Entry, additions, read, unfinished, written

RUNNING = Entry("a-1", 1000.5, "小明", "4khd", None, Counts(0, 10, 2, 5, 1, 30))


@pytest.mark.parametrize(
    "entry", [RUNNING, RUNNING.of(200, Counts(1, 2, 3, 4, 5, 6)), Entry("", 0, "k", "", 429, Counts(1))]
)
@pytest.mark.parametrize("told", [Counts(), Counts(0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("charged_at", [None, 1_777_593_600])
def test_what_is_written_is_read(entry, told, charged_at):
    entry = entry._replace(charged_at=charged_at)
    line = written(entry, told)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert read(line[:-1]) == (entry, told)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0\0",
        b"{}",
        b"[]",
        b'["a",1,"k","m",200,1,0,0,0,0]',
        b'["a",1,"k","m",200,1,0,0,0,0,0.5]',
        b'["a",1,"k","m",200,true,0,0,0,0,0]',
        b'["a",1,"k","m",200,1,0,0,0,0,99999999999999999999]',
        b'["a",1,"k","m",2000,1,0,0,0,0,0]',
        b'["a",1e300,"k","m",200,1,0,0,0,0,0]',
        b'["a",-1,"k","m",200,1,0,0,0,0,0]',
        b'["a",NaN,"k","m",200,1,0,0,0,0,0]',
        b'["a",1,"k\\u0000","m",200,1,0,0,0,0,0]',
        b'["a",1,"' + b"k" * 81 + b'","m",200,1,0,0,0,0,0]',
        b'["a",1,"k","m",200,1,0,0,0,0,0,[1]]',
        b'["a",1,"k","m",200,1,0,0,0,0,0,7]',
        b'["a",1,"k","m",200,1,0,0,0,0,0,null,0.5]',
        b'["a",1,"k","m",200,1,0,0,0,0,0,null,32503680000]',
        b'["a",1,"k","m",200,1,0,0,0,0,0,null,1,1]',
        b'["a",1,"k","m",20',
    ],
)
def test_what_is_no_entry_is_refused(line):
    with pytest.raises(ValueError):
        read(line)


def test_what_runs_counts_as_good():
    assert additions(RUNNING) == [RUNNING.of(GOOD, RUNNING.counts)]


def test_what_ends_well_adds_only_the_rest():
    end = RUNNING.of(200, Counts(1, 0, 0, 3, 0, 7))
    assert additions(end) == [end]


def test_what_ends_otherwise_takes_along_what_was_told():
    told = Counts(0, 10, 2, 5, 1, 30)
    end, taken = additions(RUNNING.of(499, Counts(1, 0, 0, 3, 0, 7)), told)
    assert (end.status, end.counts) == (499, Counts(1, 10, 2, 8, 1, 37))
    assert (taken.status, taken.counts) == (GOOD, Counts(0, -10, -2, -5, -1, -30))
    assert end.at == taken.at == RUNNING.at


def test_unfinished_are_those_without_a_last_entry():
    other = RUNNING._replace(id="a-2")
    sums = Entry("", 0, "k", "m", 200, Counts(5))
    running = RUNNING._replace(charged_at=1001)
    found = unfinished([running, other, sums, running, other.of(200, Counts(1))])
    assert found == [running.of(None, Counts(0, 20, 4, 10, 2, 60))]
