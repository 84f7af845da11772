"""Under which name the pictures of a conversation take their turns."""

import asyncio
import json

from lingbi.api_errors import BadRequest
from lingbi.batch.claims import Claimed
from lingbi.http import chat
from lingbi.http.batch.asking import ask
from lingbi.turns import Asker
from tests.server.conftest import KEY

BODY = {"model": "model", "messages": [{"role": "user", "content": "x"}]}
LINE = Claimed("batch_1", 1, "a", 0, 1, "one", "/v1/chat/completions", "file-1")


def test_lines_of_batches_and_requests_for_the_background_have_a_name_of_their_own(ready, service, monkeypatch):
    names = []

    async def note(*_, key, **__):
        names.append(key)
        raise BadRequest("this is enough")

    monkeypatch.setattr(chat, "chat_prompt", note)
    for more in ({}, {"service_tier": "flex"}):
        ready.post("/v1/chat/completions", headers=KEY, json=BODY | more)
    asyncio.run(ask(ready.app, service.keys.account("one"), LINE, json.dumps(BODY).encode()))
    background = Asker("one").in_background.name
    assert names == ["one", background, background]
