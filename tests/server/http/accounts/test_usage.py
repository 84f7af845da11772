"""GET /v1/usage without the database that it is in."""

from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.quotas.holds import Holds
from lingbi.http.admission.quotas import Quotas
from tests.server.conftest import KEY


@pytest.mark.parametrize("is_there", [True, False], ids=["away", "none"])
def test_a_database_that_does_not_answer_is_told_as_by_all_other_routes(ready, service, is_there):
    if is_there:
        database = Database(parse_url("postgresql://lingbi@127.0.0.1:9/lingbi"))
        service.quotas = Quotas(Holds(database, "worker", ZoneInfo("UTC")), "local")
    answer = ready.get("/v1/usage", headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_away"), answer.text
    assert answer.headers["retry-after"]
