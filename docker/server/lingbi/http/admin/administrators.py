"""Who may ask what is for administrators."""

from starlette.requests import Request

from lingbi.accounts.facts import KeyFacts
from lingbi.api_errors import NotPermitted
from lingbi.http.middleware.door import ACCOUNT


def check_administrator(request: Request) -> KeyFacts:
    """The key of a request, which is an administrator's. Raises NotPermitted."""
    key: KeyFacts | None = request.scope.get(ACCOUNT)
    if key is None or not key.is_admin:
        raise NotPermitted(
            f"this API key ({key.name if key else 'none'}) is no administrator's; `scripts/key limit NAME --admin` makes one that is"
        )
    return key
