"""Who counts as one visitor, and how much each may take."""

import pytest

from lingbi_ui.guard.rates import BURST_S, Rates
from lingbi_ui.guard.visitors import Visitor, shares, visitor_of
from lingbi_ui.settings import Settings


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("elsewhere" * 99, ("elsewhere" * 99)[:64]),
    ],
)
def test_an_address_or_its_network(address, name):
    assert visitor_of({"client": (address, 1)}, None) == Visitor(name)


def test_a_login_is_a_visitor_of_its_own_and_no_address():
    assert visitor_of({"client": ("10.0.0.1", 1)}, "alice") == Visitor("alice", is_login=True)
    assert Visitor("10.0.0.1", is_login=True) != Visitor("10.0.0.1")
    assert visitor_of({}, None).name == "unknown"


def test_a_class_of_forty_behind_one_address_has_room_and_leaves_room():
    found = shares(Settings())
    assert found.address.questions >= 2 * 40 and found.address.uploads >= 20
    assert found.login.questions * 10 < found.address.questions * 2 < found.all.questions
    assert found.login.files_bytes < found.address.files_bytes < found.all.files_bytes
    assert found.of(Visitor("x", is_login=True)) is found.login and found.of(Visitor("x")) is found.address


def test_a_burst_then_an_even_rate():
    now = [0.0]
    rates, one, other = Rates(lambda: now[0]), Visitor("one"), Visitor("other")
    taken = [rates.take(one, 2) for _ in range(2 * BURST_S + 5)]
    assert taken == [True] * 2 * BURST_S + [False] * 5 and rates.take(other, 2)
    now[0] += 0.5
    assert rates.take(one, 2) and not rates.take(one, 2)
    now[0] += 1000
    assert rates.take(other, 2) and len(rates._left) == 1, "who is away is forgotten"
