"""Which host passes the weights on to which, as a tree."""


def spread_parent(position, fan_out=1):
    """Which host passes the weights to the one at a position, and in which round; position 0 has them first.

    In each round every host that has the weights serves fan_out others, so their number grows by
    the factor 1 + fan_out. Returns {"round": 0, "parent": None} for the first.
    """
    holders, round_number = 1, 0
    while position >= holders:
        holders, round_number = holders * (1 + fan_out), round_number + 1
    if not round_number:
        return {"round": 0, "parent": None}
    before = holders // (1 + fan_out)
    return {"round": round_number, "parent": (position - before) % before}


def spread_rounds(hosts, fan_out=1):
    """Number of rounds until so many hosts all have the weights."""
    return spread_parent(hosts - 1, fan_out)["round"] if hosts else 0


def weights_holder(host):
    """A host's name and the digest of its weights, from its hostvars."""
    return {"name": host["inventory_hostname"], "weights_digest": host.get("weights_digest", "")}


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_spread_parent": spread_parent,
            "lingbi_spread_rounds": spread_rounds,
            "lingbi_weights_holder": weights_holder,
        }
