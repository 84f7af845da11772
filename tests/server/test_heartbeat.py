"""Vitals tell what has stalled, and only while it has work."""

from lingbi.heartbeat import Vitals


def test_vitals_tell_what_does_not_move_while_it_has_work():
    now = [0.0]
    vitals = Vitals(clock=lambda: now[0])
    now[0] = 100
    assert vitals.stalled(10) is None and vitals.unproven_s() == 100
    with vitals.encoder.working():
        now[0] = 109
        assert vitals.stalled(10) is None
        now[0] = 111
        assert "vision encoder has not moved for 11 s" in vitals.stalled(10)
        vitals.encoder.beat()
        assert vitals.stalled(10) is None
    now[0] = 200
    assert vitals.stalled(10) is None
    with vitals.model.working(), vitals.model.working():
        now[0] = 220
        assert "language model has not moved for 20 s while 2 wait" in vitals.stalled(10)
