"""The containers' networks among this machine's: what is in their way is named, with a /24 that is free."""

from ipaddress import ip_network

import pytest

from host.errors import Refusal
from host.start import networks
from host.start.networks import Taken

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
tun0\t00000000\t0100080A\t0003\t0\t0\t0\t00000080\t0\t0\t0
tun0\t00001EAC\t0100080A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
br-0123456789ab\t004C1FAC\t00000000\t0001\t0\t0\t0\t80FFFFFF\t0\t0\t0
"""


def network(name: str, *subnets: str, project: str = "", **more) -> dict:
    """One of Docker's networks, as `docker network inspect` describes it."""
    labels = {"com.docker.compose.project": project} if project else {}
    configured = [{"Subnet": subnet} for subnet in subnets]
    return {
        "Name": name,
        "Id": name.ljust(64, "0"),
        "Labels": labels,
        "IPAM": {"Config": configured},
        "Options": {},
    } | more


def check(subnet: str, *found: dict, routes: str = "", project: str = "lingbi") -> None:
    networks.check_free(subnet, project, list(found), networks.routes_of(routes))


def test_routes_are_read_and_ways_to_everything_left_out():
    assert networks.routes_of(ROUTES) == [
        Taken(ip_network("192.168.1.0/24"), "the interface eth0", False),
        Taken(ip_network("172.30.0.0/16"), "the interface tun0", True),
        Taken(ip_network("172.31.76.0/25"), "the interface br-0123456789ab", False),
    ]
    assert networks.routes_of("") == []


@pytest.mark.parametrize(
    ("subnet", "said"),
    [
        (
            "192.168.1",
            "192.168.1.0/24 overlaps with 192.168.1.0/24 of the interface eth0; free is LINGBI_SUBNET=172.31.76",
        ),
        (
            "172.30.76",
            "172.30.76.0/24 overlaps with 172.30.0.0/16 of the interface tun0; free is LINGBI_SUBNET=172.31.76",
        ),
    ],
)
def test_a_network_of_the_machine_is_in_the_way(subnet, said):
    table = "".join(line for line in ROUTES.splitlines(keepends=True) if not line.startswith("br-"))
    with pytest.raises(Refusal) as refusal:
        check(subnet, routes=table)
    assert said in str(refusal.value)
    check("172.31.76", routes=table)


def test_another_network_of_docker_is_in_the_way_by_its_name():
    other = network("shop_default", "10.9.0.0/16", project="shop")
    with pytest.raises(Refusal, match=r"10.9.0.0/16 of Docker's network shop_default \(project shop\); free is LINGBI"):
        check("10.9.76", other)
    check("10.8.76", other)
    check("10.9.76", network("host"), network("six", "fd00:9::/64"), network("nothing", IPAM={"Config": None}))


def test_its_own_networks_and_their_routes_are_not_in_its_way():
    own = network("lingbi_inside", "172.31.76.128/25", project="lingbi", Id="0123456789ab".ljust(64, "0"))
    check("172.31.76", own, routes=ROUTES)
    with pytest.raises(Refusal, match="of Docker's network lingbi_inside"):
        check("172.31.76", own, routes=ROUTES, project="second")
    named = network("lingbi_inside", project="lingbi", Options={"com.docker.network.bridge.name": "lab0"})
    check("172.31.76", named, routes=ROUTES.replace("br-0123456789ab", "lab0"))


def test_a_vpn_that_takes_all_private_networks_does_not_stop_it():
    def route(digits: str, mask: str) -> str:
        return f"tun0\t{digits}\t0100080A\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n"

    whole = ROUTES.splitlines()[0] + "\n" + route("0000000A", "000000FF") + route("000010AC", "0000F0FF")
    with pytest.raises(Refusal, match="172.16.0.0/12 of the interface tun0; free is LINGBI_SUBNET=192.168.255"):
        check("172.30.76", routes=whole)
    whole += route("0000A8C0", "0000FFFF")
    check("172.30.76", routes=whole)
    with pytest.raises(Refusal, match="of the interface eth0; free is LINGBI_SUBNET=172.30.76"):
        check("192.168.1", routes=whole + ROUTES.splitlines(keepends=True)[2])


def test_where_nothing_is_free_that_is_said():
    every = [
        network(f"n{number}", subnet) for number, subnet in enumerate(("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    ]
    with pytest.raises(Refusal, match="set another one in .env"):
        check("172.30.76", *every)


def test_networks_that_move_are_found():
    wanted = {
        "inside": {
            "name": "lingbi_inside",
            "ipam": {"config": [{"subnet": "10.1.1.128/25", "ip_range": "10.1.1.128/26"}]},
        },
        "outside": {"name": "lingbi_outside", "ipam": {"config": [{"subnet": "10.1.1.0/26"}]}},
        "published": {"name": "lingbi_published", "ipam": {}},
        "gateway": {"name": "shop_inside", "external": True},
    }
    inside = network("lingbi_inside", "172.30.76.128/25", project="lingbi")
    others = [network("lingbi_published", "172.18.0.0/16", project="lingbi"), network("shop_inside", "10.9.0.0/16")]
    assert networks.moved(wanted, "lingbi", [inside, *others]) == ["lingbi_inside"]
    assert networks.moved(wanted, "lingbi", [network("lingbi_inside", "10.1.1.128/25", project="lingbi")]) == []
    assert networks.moved(wanted, "lingbi", []) == []


def test_networks_that_others_hold_do_not_move():
    networks.check_alone([], "lingbi", {"shop": "shop"})
    networks.check_alone(["lingbi_inside"], "lingbi", {"lingbi-server-1": "lingbi"})
    with pytest.raises(
        Refusal, match=r"lingbi_inside must be made anew .*, and agent, shop is attached; .*docker stop agent"
    ):
        networks.check_alone(["lingbi_inside"], "lingbi", {"shop": "", "agent": "agents", "server": "lingbi"})
