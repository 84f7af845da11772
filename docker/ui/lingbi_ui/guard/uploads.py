"""Takes in pictures: each is judged by its name, its first bytes, its size and the visitor's room while it comes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lingbi_pictures.formats import HEAD_BYTES
from lingbi_ui.guard.heads import fault_of
from lingbi_ui.guard.parts import Parts, Piece
from lingbi_ui.guard.questions import Unfit, is_session
from lingbi_ui.guard.refusals import refusal
from lingbi_ui.guard.storage import LEAST_BYTES, Full, Storage
from lingbi_ui.guard.visitors import VISITOR, Shares, Visitor
from lingbi_ui.settings import Settings

Upload = tuple[Visitor, str]  # whose it is, and the id that the page gave it
UPLOAD_S = 600.0  # for a whole upload
PROGRESS_S, COMES_S = 0.2, 2.0
MIB = 1 << 20


class Refused(Exception):
    """A file that is not taken. word: the sentence that says why."""

    def __init__(self, status: int, word: str, name: str = ""):
        super().__init__(word)
        self.status, self.word, self.name = status, word, name


class Incoming:
    """One file on its way to the disk. Nothing is written before its first bytes have shown that it is a picture."""

    def __init__(self, storage: Storage, visitor: Visitor, name: str, max_bytes: int):
        self.storage, self.visitor, self.name, self.max_bytes = storage, visitor, name, max_bytes
        self.head, self.size, self.counted = b"", 0, 0
        self.place: Path | None = None
        self.stream: IO[bytes] | None = None

    async def add(self, data: bytes) -> None:
        """Raises Refused and Full."""
        self.size += len(data)
        if self.size > self.max_bytes:
            raise Refused(413, "picture_large", self.name)
        if self.stream is None:
            self.head += data
            if len(self.head) < HEAD_BYTES:
                return
            data = self._open()
        await self._write(data)

    async def end(self) -> Path:
        """The file, which is whole now. Raises Refused and Full."""
        if self.stream is None:
            await self._write(self._open())
        assert self.stream is not None and self.place is not None
        await asyncio.to_thread(self.stream.close)
        self.storage.written(self.place)
        return self.place / self.name

    def drop(self) -> None:
        """Remove what there is of it."""
        if self.stream is not None:
            self.stream.close()
        if self.place is not None:
            self.storage.give_back(self.visitor, self.place, self.counted)

    def _open(self) -> bytes:
        """Begin the file; returns the bytes that were held back until now."""
        word = fault_of(self.head)
        if word:
            raise Refused(415, word, self.name)
        self._count(LEAST_BYTES)
        self.place = self.storage.new_folder(self.visitor)
        self.stream = (self.place / self.name).open("xb")
        return self.head

    async def _write(self, data: bytes) -> None:
        self._count(max(0, self.size - self.counted))
        assert self.stream is not None
        await asyncio.to_thread(self.stream.write, data)

    def _count(self, size: int) -> None:
        self.storage.take(self.visitor, size)
        self.counted += size


class Uploads:
    """The routes of uploads."""

    def __init__(self, settings: Settings, storage: Storage, shares: Shares):
        self.settings, self.storage, self.shares = settings, storage, shares
        self.running: list[Visitor] = []
        self.progress: dict[Upload, tuple[str, int]] = {}  # of running ones: (name, bytes) so far

    async def take(self, request: Request) -> Response:
        """`POST /gradio_api/upload`: the paths of the files, in their order."""
        visitor: Visitor = request.scope[VISITOR]
        upload = _upload_of(request)
        if not self._has_room(visitor):
            return refusal(request.scope, 429, "page_busy")
        self.running.append(visitor)
        try:
            files = await asyncio.wait_for(self._files(request, upload), UPLOAD_S)
            return JSONResponse([str(file) for file in files])
        except (Unfit, Full) as fault:
            return refusal(request.scope, fault.status, fault.word, max_pictures=self.settings.max_pictures)
        except Refused as fault:
            largest = self.settings.max_picture_mib
            return refusal(request.scope, fault.status, fault.word, name=fault.name, max_picture_mib=largest)
        except (ClientDisconnect, asyncio.TimeoutError):
            return refusal(request.scope, 408, "page_busy")
        finally:
            self.running.remove(visitor)
            self.progress.pop(upload, None)

    async def tell(self, request: Request) -> Response:
        """`GET /gradio_api/upload_progress`: how much of each file has come, until the upload has ended."""
        return StreamingResponse(self._told(_upload_of(request)), media_type="text/event-stream")

    async def _told(self, upload: Upload) -> AsyncIterator[str]:
        began, name, before = time.monotonic(), "", 0
        while upload in self.progress or time.monotonic() - began < COMES_S:
            told, size = self.progress.get(upload, (name, before))
            if (told, size) != (name, before):
                more = size - (before if told == name else 0)
                yield f"data: {json.dumps({'msg': 'update', 'orig_name': told, 'chunk_size': more})}\n\n"
                name, before, began = told, size, 0.0
            await asyncio.sleep(PROGRESS_S)
        yield f"data: {json.dumps({'msg': 'done'})}\n\n"

    async def _files(self, request: Request, upload: Upload) -> list[Path]:
        parts = Parts(request.headers.get("content-type", ""), self.settings.max_pictures)
        taken: list[Incoming] = []
        files: list[Path] = []
        try:
            left = (self.settings.max_pictures * self.settings.max_picture_mib + 1) * MIB
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    raise Unfit("page_large", 413)
                for piece in parts.feed(chunk):
                    await self._add(piece, taken, files, upload[0])
                if taken and is_session(upload[1]):
                    self.progress[upload] = taken[-1].name, taken[-1].size
            if not parts.is_whole or len(files) < len(taken):
                raise Unfit
        except BaseException:
            for incoming in taken:
                incoming.drop()
            raise
        return files

    async def _add(self, piece: Piece, taken: list[Incoming], files: list[Path], visitor: Visitor) -> None:
        if piece.name is not None:
            taken.append(Incoming(self.storage, visitor, piece.name, self.settings.max_picture_mib * MIB))
        elif piece.is_end:
            files.append(await taken[-1].end())
        else:
            await taken[-1].add(piece.data)

    def _has_room(self, visitor: Visitor) -> bool:
        own, every = self.shares.of(visitor).uploads, self.shares.all.uploads
        return self.running.count(visitor) < own and len(self.running) < every


def _upload_of(request: Request) -> Upload:
    return request.scope[VISITOR], request.query_params.get("upload_id", "")
