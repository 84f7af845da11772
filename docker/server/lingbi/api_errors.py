"""The API's refusals, each with its HTTP status, its code and a sentence for the client."""

from typing import Any


class Refusal(Exception):
    """A request that is not answered.

    status: HTTP status; code, kind, param: as in the OpenAI API's error object; headers: extra response headers;
    reason: a short name for metrics and logs.
    """

    status, kind = 400, "invalid_request_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        param: str | None = None,
        reason: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.param, self.reason, self.headers = param, reason or self.code, headers

    def body(self) -> dict[str, Any]:
        """The error in the OpenAI form."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class BadRequest(Refusal):
    """The request cannot be understood or used."""

    code = "invalid_value"


class ImageError(Refusal, ValueError):
    """An image of a request cannot be used."""

    code = "invalid_image"


class TooLong(Refusal):
    """Prompt and answer do not fit the session."""

    code = "context_length_exceeded"


class UnknownKey(Refusal):
    """The request has no API key, or an unknown one."""

    status, code = 401, "invalid_api_key"


class VisitorEnded(UnknownKey):
    """The key is good, and it is the page's; the account of the visitor for whom the page asks has ended."""

    code = "visitor_ended"


class UnknownModel(Refusal):
    """The request asks for a model that is not served."""

    status, code = 404, "model_not_found"


class ModelNotAllowed(Refusal):
    """The key may not use this model; status and code are OpenAI's for a project without access to a model."""

    status, code = 403, "model_not_found"


class NotPermitted(Refusal):
    """What is asked is for administrators, and the key is not one's."""

    status, code = 403, "permission_denied"


class UnknownAccount(Refusal):
    """There is no key or group of this name."""

    status, code = 404, "not_found"


class NotFound(Refusal):
    """This key has no such file or batch."""

    status, code = 404, "not_found"


class Conflict(Refusal):
    """It is there already, has ended, or the change would shut out somebody who is needed."""

    status, code = 409, "conflict"


class StorageQuota(Refusal):
    """The files of this key take as much as they may."""

    status, code = 413, "storage_quota_exceeded"


class InsufficientStorage(Refusal):
    """The server's disk has no room for the file."""

    status, kind, code = 507, "server_error", "insufficient_storage"


class DatabaseSilent(Refusal):
    """The accounts' database does not answer."""

    status, kind, code = 503, "server_error", "database_away"


class BodyTimeout(Refusal):
    """The client sends its request too slowly."""

    status, code = 408, "request_timeout"


class BodyTooLarge(Refusal):
    """The request is larger than the server takes."""

    status, code = 413, "request_too_large"


class UnsupportedEncoding(Refusal):
    """The body is compressed or otherwise encoded."""

    status, code = 415, "unsupported_content_encoding"


class Busy(Refusal):
    """The queue is full, or the key has reached its limit of concurrent requests."""

    status, kind, code = 429, "rate_limit_error", "queue_full"


class OverQuota(Refusal):
    """The key, or its group, has used what it may: rate_limit_exceeded for a minute, insufficient_quota for longer."""

    status, kind, code = 429, "insufficient_quota", "insufficient_quota"

    def __init__(self, message: str, code: str, kind: str, quota: dict[str, Any], reason: str, headers: dict[str, str]):
        super().__init__(message, reason=reason, headers=headers)
        self.code, self.kind, self.quota = code, kind, quota

    def body(self) -> dict[str, Any]:
        """The error in the OpenAI form, with the limit for programs that say it in their own words."""
        return {"error": super().body()["error"] | {"quota": self.quota}}


class QuotasAway(Refusal):
    """The database of quotas is away, and LINGBI_QUOTA_WHEN_AWAY lets no key with limits in meanwhile."""

    status, kind, code = 503, "server_error", "quotas_away"


class NotReady(Refusal):
    """The worker is loading, is draining, or cannot answer."""

    status, kind, code = 503, "server_error", "not_ready"


class EngineFault(Refusal):
    """The engine failed on this request."""

    status, kind, code = 500, "server_error", "engine_error"


class ClientGone(Exception):
    """The client left before its answer was ready; there is nobody to send an error to."""
