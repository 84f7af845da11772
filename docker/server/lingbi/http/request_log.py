"""What is known of one request: for its log line and for the metrics."""

import time
import uuid
from dataclasses import dataclass, field

from lingbi.logs import REQUEST_ID, requests


@dataclass
class Record:
    """One request. Times are seconds since it arrived; counts are None until they are known."""

    id: str
    method: str
    path: str
    client: str
    route: str = "other"
    key: str | None = None
    status: int | None = None
    error: str | None = None
    reason: str | None = None
    stream: bool | None = None
    pictures: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    queue_s: float | None = None
    encode_s: float | None = None
    first_token_s: float | None = None
    began: float = field(default_factory=time.monotonic, repr=False)

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.began

    def write(self) -> None:
        """The request's line in the log."""
        fields = {name: value for name, value in vars(self).items() if value is not None and name != "began"}
        fields = {name: round(value, 4) if isinstance(value, float) else value for name, value in fields.items()}
        requests.info("request", extra=fields | {"seconds": round(self.elapsed(), 4)})


def request_id(presented: bytes) -> str:
    """The client's own id if it is usable, otherwise a new one."""
    text = presented.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else f"req-{uuid.uuid4().hex}"
