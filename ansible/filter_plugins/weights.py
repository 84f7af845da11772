"""Which hosts pass the weights of which model on to which, as a tree."""


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


def known_weights(running, models):
    """{model: digest} of the weights that a host has of these models. running: what was last proven to run there."""
    recorded = running.get("weights") or {}
    if isinstance(recorded, str):  # as versions recorded it that served one model
        recorded = {running.get("model", ""): recorded}
    return {model: recorded[model] for model in models if recorded.get(model)}


def weights_holder(host):
    """What spreads() takes of a host, from its hostvars."""
    return {"name": host["inventory_hostname"], "models": host["weights_models"], "weights": host["weights_digests"]}


def spreads(holders):
    """[{"model", "order"}] of the models whose weights a host still lacks; order: names of the hosts that need them,
    those that have them first, and no others."""
    found = []
    for model in dict.fromkeys(model for host in holders for model in host["models"]):
        needing = [host for host in holders if model in host["models"]]
        having = [host["name"] for host in needing if model in host["weights"]]
        lacking = [host["name"] for host in needing if model not in host["weights"]]
        found += [{"model": model, "order": having + lacking}] if lacking else []
    return found


def spread_place(order, name):
    """A host's place in the tree of one model."""
    return spread_parent(order.index(name))


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_spread_place": spread_place,
            "lingbi_spread_rounds": spread_rounds,
            "lingbi_known_weights": known_weights,
            "lingbi_weights_holder": weights_holder,
            "lingbi_spreads": spreads,
        }
