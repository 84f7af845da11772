"""The stack that is attacked: one of its own, started as `scripts/up --native` does, or one that runs already."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from lingbi.launch.supervision import Supervisor, wait_until
from lingbi_ui.logins import change
from tests.client import CHAT, body, is_let_in
from tests.conftest import running_stack
from tests.keys import add_to_file
from tests.load.abuse.addresses import OWN
from tests.load.abuse.gradio_page import event_number
from tests.load.abuse.processes import Processes
from tests.load.abuse.trust import AUTHORITIES

TEXTS = ("hello", "你好", "What can you do?")
TEXT_TOKENS = 8
KEYS_ARE_READ_S = 10
VISITOR, REMOVED = "visitor", "removed"


@dataclass(frozen=True)
class Stack:
    """A running stack: keys of honest clients, a key of the attackers, and logins where it asks for them.

    texts: {question: the answer that a calm server gives}; event: the number of the page's event that asks;
    addresses: where its clients come from (addresses.py); login: (name, password) of the page's visitors; cookies: of a
    login that was removed.
    """

    url: str
    model: str
    keys: tuple[str, ...]
    attackers_key: str
    processes: Processes
    addresses: str
    texts: dict[str, str] = field(default_factory=dict)
    event: int = 0
    login: tuple[str, str] | None = None
    cookies: dict[str, str] | None = None


@contextlib.contextmanager
def own_stack(count: int, has_logins: bool = False) -> Iterator[Stack]:
    """A stack with the demo model and this many keys; with logins, it has one for visitors and one that was removed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # so that the gateway keeps its files there too, though root starts it
        state_dir = Path(folder) / "state"
        state_dir.mkdir()
        with _started(state_dir, count, has_logins) as stack:
            yield stack


@contextlib.contextmanager
def _started(state_dir: Path, count: int, has_logins: bool) -> Iterator[Stack]:
    logins = state_dir / "logins"
    passwords = {name: change(logins, "add", name) for name in (VISITOR, REMOVED)} if has_logins else {}
    with running_stack(state_dir) as report:
        keys = [add_to_file(state_dir / "keys", f"visitor-{number}", None) for number in range(count)]
        attackers_key = add_to_file(state_dir / "keys", "attacker", None)
        supervisor = Supervisor(state_dir).process()
        assert supervisor, state_dir
        processes = Processes(lambda: [supervisor.pid], [state_dir / "pictures", state_dir / "gateway" / "body"])
        stack = Stack(report["url"], report["model"], tuple(keys), attackers_key, processes, OWN)
        if has_logins:
            cookies = log_in(stack.url, REMOVED, passwords[REMOVED])
            change(logins, "remove", REMOVED)
            stack = replace(stack, login=(VISITOR, passwords[VISITOR]), cookies=cookies)
        yield as_found(stack)


def other_stack(url: str, key_file: Path, processes: Processes, addresses: str) -> Stack:
    """A stack that runs already.

    key_file: keys, one a line; the last is the attackers', the others are the honest clients'.
    processes, addresses: as in Stack.
    """
    *keys, attackers_key = key_file.read_text().split()
    assert keys, f"{key_file} has {len(keys) + 1} key; give two or more, one a line"
    model = httpx.get(f"{url}/ready", verify=AUTHORITIES, trust_env=False).json()["model"]
    stack = Stack(url, model, tuple(keys), attackers_key, processes, addresses)
    return as_found(stack)


def as_found(stack: Stack) -> Stack:
    """The stack with what it says while it is calm, once it knows its keys, of which the attackers' was made last."""
    last = {"url": stack.url, "key": stack.attackers_key}
    known = wait_until(lambda: is_let_in(last, verify=AUTHORITIES), KEYS_ARE_READ_S)
    assert known, f"{stack.url} did not let the attackers' key in within {KEYS_ARE_READ_S} s"
    return replace(stack, texts=calm_answers(stack, stack.keys[0]), event=asking_event(stack))


def calm_answers(stack: Stack, key: str) -> dict[str, str]:
    """What the server answers to each text when nobody else asks; it says the same again at temperature 0."""
    headers = {"Authorization": f"Bearer {key}"}
    found = {}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60, verify=AUTHORITIES, trust_env=False) as client:
        for text in TEXTS:
            response = client.post(CHAT, json=text_body(stack.model, text))
            response.raise_for_status()
            found[text] = response.json()["choices"][0]["message"]["content"]
    return found


def asking_event(stack: Stack) -> int:
    """The number of the page's event that asks, as the page's visitors are told it."""
    with httpx.Client(base_url=stack.url, verify=AUTHORITIES, trust_env=False, timeout=60) as client:
        if stack.login:
            client.post("/login", data={"username": stack.login[0], "password": stack.login[1]})
        return event_number(client.get("/config").raise_for_status().json())


def text_body(model: str, text: str, **options) -> dict:
    return body({"model": model}, [{"role": "user", "content": text}], max_tokens=TEXT_TOKENS, **options)


def log_in(url: str, name: str, password: str) -> dict[str, str]:
    """The page's cookies for this login."""
    with httpx.Client(base_url=url, timeout=60, verify=AUTHORITIES, trust_env=False) as client:
        client.post("/login", data={"username": name, "password": password}).raise_for_status()
        return dict(client.cookies)
