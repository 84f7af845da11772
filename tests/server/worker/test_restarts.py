"""The record of a worker's restarts."""

from lingbi.worker.restarts import Restarts


def test_restarts_are_remembered_until_an_orderly_end(tmp_path):
    file = tmp_path / "run/worker-0.starts"
    assert Restarts(file).reasons == {}
    Restarts(file).note("wedged")
    assert Restarts(file).reasons == {"crashed": 1, "wedged": 1}
    Restarts(file).forget()
    assert Restarts(file).reasons == {}
    file.write_text("{")
    assert Restarts(file).reasons == {}
