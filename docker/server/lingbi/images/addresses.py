"""Decides which addresses an image may be fetched from, in whatever notation they are written."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All that IANA has allocated for the public internet; anything else (site-local fec0::/10 too) is not public.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
# Clouds serve credentials here, whether or not IANA lists these addresses as global.
METADATA = tuple(
    map(ipaddress.ip_network, ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32"))
)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks of a comma-separated list of CIDR blocks. Raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_allowed(address: str, networks: tuple[Network, ...] = ()) -> bool:
    """Whether a numeric address is public, or in one of the networks that the operator allows."""
    ip = _unmapped(ipaddress.ip_address(address.partition("%")[0]))
    forms: list[Address] = [*([] if ip in NAT64 else [ip]), *_embedded(ip)]
    if any(form in network for form in forms for network in networks if form.version == network.version):
        return True
    return all(_is_public(form) for form in forms)


def _unmapped(ip: Address) -> Address:
    """The IPv4 address that ::ffff:a.b.c.d means; any other as it is."""
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def _is_public(ip: Address) -> bool:
    if any(ip in network for network in METADATA if ip.version == network.version):
        return False
    if ip.version == 6 and ip not in PUBLIC_IPV6:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _embedded(ip: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 address stands for: 6to4, Teredo, NAT64, compatible."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [ip.sixtofour, *(ip.teredo or ())]
    if ip in NAT64 or int(ip) >> 32 == 0:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [form for form in found if form]
