"""Servers that cost next to nothing, hundreds in one process, and a client as cheap: what is left of the time is the gateway's."""

import asyncio
import json
import random
from collections import Counter

from tests.client import CHAT

PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "a token"}}], "model": "internlm-xcomposer2-vl-7b"}\n\n'
CHUNK_PAUSE_S = 0.004


class Server(asyncio.Protocol):
    """A server that answers each request with its port, after a while; `running` counts the requests of all by port.

    chunks: in so many pieces, one after the other, as answers are streamed; 0: in one.
    """

    running: Counter = Counter()
    seconds = 0.0
    chunks = 0

    def connection_made(self, transport) -> None:
        self.transport, self.came = transport, b""
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, found, body = self.came.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0) if found else 0
        if found and len(body) >= size:
            self.came = b""
            Server.running[self.port] += 1
            answer = self.stream if Server.chunks else self.answer
            asyncio.get_running_loop().call_later(Server.seconds * random.uniform(0.5, 1.5), answer, Server.chunks)

    def answer(self, _: int) -> None:
        Server.running[self.port] -= 1
        text = b"%d" % self.port
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    def stream(self, left: int) -> None:
        if left == Server.chunks:
            self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if left:
            self.transport.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            asyncio.get_running_loop().call_later(CHUNK_PAUSE_S, self.stream, left - 1)
        else:
            Server.running[self.port] -= 1
            self.transport.write(b"0\r\n\r\n")


class Client:
    """One connection to a gateway, made when it is first needed: nginx closes one on which nothing comes for 5 s."""

    def __init__(self, url: str) -> None:
        self.host, self.port = url.removeprefix("http://").split(":")

    async def __aenter__(self) -> "Client":
        self.left, self.writer = 0, None
        return self

    async def __aexit__(self, *_) -> None:
        if self.writer:
            self.writer.close()

    async def ask(self, messages: list) -> int:
        """The port of the server that answered."""
        answer = await self._asked(messages)
        size = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(await self.reader.readexactly(size))

    async def ask_for_stream(self, messages: list) -> None:
        """Read an answer that comes in pieces."""
        await self._asked(messages)
        await self.reader.readuntil(b"\r\n0\r\n\r\n")

    async def _asked(self, messages: list) -> bytes:
        """The head of the answer."""
        if not self.left:
            await self.__aexit__()
            self.reader, self.writer = await asyncio.open_connection(self.host, int(self.port))
            self.left = 900  # nginx ends a connection after 1000 requests
        self.left -= 1
        body = json.dumps({"model": "any", "messages": messages}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: fleet\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        return answer
