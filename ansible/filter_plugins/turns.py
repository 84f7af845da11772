"""In which order the servers of a lab roll, so that every model is answered wherever two hosts hold it; and which will be away.

A host is {"name", "is_due", "before", "after", "seconds"}: whether it has to roll, the models that it serves now and will
serve after its turn, and how long its last turn kept it away (None: nobody knows). It serves its models but in its turn.
"""


def turns(hosts, serial):
    """The batches in which the hosts have their turns: [[names]]. serial: hosts at once, a number or a part as in 10%.

    Hosts that need not roll come first, and together, since they stay where they are. Of the others the first rolls alone.
    A batch leaves at least one host of each model that another host holds, and at most `serial` of a model's hosts are away;
    a host that gives a model away waits for the one that gets it. Where hosts wait for each other, one of them goes.
    """
    idle, left = [host for host in hosts if not host["is_due"]], [host for host in hosts if host["is_due"]]
    done, batches = list(idle), [idle] if idle else []
    most = 1
    while left:
        batch = next_batch(left, done, most, serial) or [min(left, key=lambda host: len(missed([host], left, done)))]
        left, done = [host for host in left if host not in batch], done + batch
        batches.append(batch)
        most = share(serial, len(hosts))
    return [[host["name"] for host in batch] for batch in batches]


def share(serial, hosts):
    """How many hosts of so many may be away at once, at least 1, as Ansible counts it."""
    text = str(serial)
    return max(1, hosts * int(text[:-1]) // 100 if text.endswith("%") else int(text))


def next_batch(left, done, most, serial):
    """The hosts that may go next, in the order of the inventory; empty where each has to wait for another."""
    batch = []
    for host in left:
        if len(batch) < most and all(may_lose(model, host, batch, left, done, serial) for model in host["before"]):
            batch.append(host)
    return batch


def may_lose(model, host, batch, left, done, serial):
    """Whether a host that serves a model may be away beside the batch."""
    away = [other for other in batch if model in other["before"]]
    if serving(model, [*batch, host], left, done):
        holders = sum(model in other["before"] or model in other["after"] for other in left + done)
        return len(away) < share(serial, holders)
    # Waiting helps where another host will have the model after its own turn.
    return not any(model in other["after"] for other in left if other is not host)


def serving(model, batch, left, done):
    """The hosts that answer for a model while a batch is away."""
    stay = [host for host in left if host not in batch and model in host["before"]]
    return stay + [host for host in done if model in host["after"]]


def missed(batch, left, done):
    """The models that nobody answers for while a batch is away."""
    models = dict.fromkeys(model for host in batch for model in host["before"])
    return [model for model in models if not serving(model, batch, left, done)]


def outlook(hosts, serial):
    """Sentences on what becomes of each model in a rollout, to be read before it starts; none where nothing rolls."""
    by_name, left, done = {host["name"]: host for host in hosts}, list(hosts), []
    spans, answered = {}, set().union(*(host["before"] for host in hosts)) if hosts else set()
    for names in turns(hosts, serial):
        batch = [by_name[name] for name in names]
        if batch[0]["is_due"]:
            for model in sorted(answered):
                if not serving(model, batch, left, done):
                    spans.setdefault(model, []).append(batch)
        left, done = [host for host in left if host not in batch], done + batch
    if not any(host["is_due"] for host in hosts):
        return []
    models = dict.fromkeys(model for host in hosts for model in [*host["before"], *host["after"]])
    return [sentence(model, hosts, spans.get(model, [])) for model in models]


def sentence(model, hosts, batches):
    """What becomes of one model. batches: those during which nobody answers for it."""
    before, after = ([host["name"] for host in hosts if model in host[when]] for when in ("before", "after"))
    if not after:
        return f"{model}: ends with this rollout; the inventory gives it to no host, and {listed(before)} served it"
    if not before:
        return f"{model}: is new, on {listed(after)}"
    if not batches:
        return f"{model}: answered throughout, by {listed(sorted({*before, *after}))}"
    rolling = listed([host["name"] for batch in batches for host in batch])
    where = f"only {after[0]} has it" if before == after else f"{listed(before)} had it, {listed(after)} will"
    return f"{model}: away during the turn of {rolling}, {duration(batches)}; {where}"


def duration(batches):
    """How long some batches will be away, as far as their hosts' last turns tell."""
    slowest = [[host["seconds"] for host in batch] for batch in batches]
    if any(seconds is None for batch in slowest for seconds in batch):
        return "for as long as the server takes to start: no turn has been measured yet"
    return f"about {sum(max(batch) for batch in slowest):.0f} s by the last turns"


def listed(names):
    """Names as a sentence has them."""
    return ", ".join(names)


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {"lingbi_turns": turns, "lingbi_outlook": outlook}
