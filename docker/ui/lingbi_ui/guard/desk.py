"""The questions at work in Gradio's queue: how many a visitor has there, and the end of sessions that nobody reads.

Gradio keeps what a session shall be told until somebody reads it, without a bound in number, size or time.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradio import Blocks
from gradio.utils import cancel_tasks, safe_aclose_iterator

from lingbi_ui.guard.visitors import Share, Shares, Visitor

UNREAD_S = 15.0  # a browser comes for its answer within a second
LOOK_S = 1.0
MAX_UNREAD = 600  # messages: at twenty a second a reader is half a minute behind
log = logging.getLogger("uvicorn.error")


class Inbox(asyncio.Queue[Any]):
    """A session's messages. Once there are too many it takes no more, and its session ends."""

    is_over = False

    def put_nowait(self, item: Any) -> None:
        if self.qsize() >= MAX_UNREAD:
            self.is_over = True
        else:
            super().put_nowait(item)


@dataclass
class Session:
    """bytes: of the bodies of its questions, since it last had none."""

    visitor: Visitor
    seen_at: float
    bytes: int = 0
    joining: int = 0
    readers: int = 0


class Desk:
    """Every session with a question or a reader."""

    def __init__(self, blocks: Blocks, shares: Shares, clock: Callable[[], float] = time.monotonic):
        self.blocks, self.queue, self.shares, self.clock = blocks, blocks._queue, shares, clock
        self.sessions: dict[str, Session] = {}

    def admits(self, visitor: Visitor, name: str, size: int) -> bool:
        """Whether one more question of this size may join; then it counts until `joined`."""
        session = self.sessions.get(name) or Session(visitor, self.clock())
        if session.visitor != visitor or not self._has_room(visitor, size):
            return False
        self.sessions[name] = session
        session.joining, session.bytes = session.joining + 1, session.bytes + size
        session.seen_at = self.clock()
        if name not in self.queue.pending_messages_per_session:
            self.queue.pending_messages_per_session[name] = Inbox()
        return True

    def joined(self, name: str) -> None:
        """The question is in Gradio's queue, or was refused there."""
        if name in self.sessions:
            self.sessions[name].joining -= 1

    def owns(self, visitor: Visitor, name: str) -> bool:
        return name in self.sessions and self.sessions[name].visitor == visitor

    def begin_reading(self, name: str) -> None:
        if name in self.sessions:
            self.sessions[name].readers += 1

    def end_reading(self, name: str) -> None:
        if name in self.sessions:
            session = self.sessions[name]
            session.readers, session.seen_at = max(0, session.readers - 1), self.clock()

    async def watch(self) -> None:
        """End what nobody reads, again and again; runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for name in [name for name, session in self.sessions.items() if self._is_over(name, session)]:
                await self.end(name)

    async def end(self, name: str) -> None:
        """Stop the session's answers and forget what it was to be told."""
        self.sessions.pop(name, None)
        await self.queue.clean_events(session_hash=name)
        events = self.queue.pending_event_ids_session.pop(name, set())
        if events:
            log.info("a session that nobody reads has ended, with %d questions", len(events))
            await cancel_tasks({f"{name}_{number}" for number in self.blocks.fns})
        for event in events:
            self.queue.event_ids_to_events.pop(event, None)
            await self._close(event)
        self.queue.pending_messages_per_session.pop(name, None)
        if self.queue.server_app is not None:
            self.queue.server_app.state_holder.session_data.pop(name, None)

    async def _close(self, event: str) -> None:
        app = self.queue.server_app
        if app is not None and event in app.iterators:
            await safe_aclose_iterator(app.iterators.pop(event))

    def _is_over(self, name: str, session: Session) -> bool:
        inbox = self.queue.pending_messages_per_session.get(name)
        if getattr(inbox, "is_over", False):
            return True
        return not session.readers and not session.joining and self.clock() - session.seen_at > UNREAD_S

    def _has_room(self, visitor: Visitor, size: int) -> bool:
        own = {name: one for name, one in self.sessions.items() if one.visitor == visitor}
        return self._fits(own, self.shares.of(visitor), size) and self._fits(self.sessions, self.shares.all, size)

    def _fits(self, sessions: dict[str, Session], share: Share, size: int) -> bool:
        questions = held = 0
        for name, session in sessions.items():
            waiting = len(self.queue.pending_event_ids_session.get(name, ())) + session.joining
            session.bytes = session.bytes if waiting else 0
            questions, held = questions + waiting, held + session.bytes
        is_few = len(sessions) < share.streams
        return is_few and questions < share.questions and held + size <= share.held_bytes
