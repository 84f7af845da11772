"""What the OpenAPI document says is what is served: schemathesis asks, with good and with bad data."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from lingbi.http.openapi import describe

MODEL = "internlm-xcomposer2-demo"
EXAMPLES = 40
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
METHODS = [schemathesis.DataGenerationMethod.positive, schemathesis.DataGenerationMethod.negative]


def schema_of(url: str):
    return schemathesis.from_dict(
        describe(MODEL), base_url=url, data_generation_methods=METHODS, force_schema_version="30"
    )


OPERATIONS = [result.ok() for result in schema_of("http://127.0.0.1").get_all_operations()]


def bounded(body):
    """Answers of a test are short; everything else stays as it was made."""
    if isinstance(body, dict) and isinstance(body.get("max_tokens", 0) or 0, int):
        return body | {"max_tokens": min(body.get("max_tokens") or 4, 4)}
    return body


# What has neither body nor parameters cannot be asked wrongly, nor can a path that is one word of text.
ASKED = [(op, method) for op in OPERATIONS for method in METHODS if op.method == "post" or method is METHODS[0]]


@pytest.mark.parametrize(("operation", "method"), ASKED, ids=lambda item: getattr(item, "path", None) or item.name)
def test_no_breach_and_no_5xx(demo_server, operation, method):
    headers = {"Authorization": f"Bearer {demo_server['key']}"}
    operation = schema_of(demo_server["url"])[operation.path][operation.method]
    statuses = set()

    @given(case=operation.as_strategy(data_generation_method=method))
    @BOUNDED
    def ask(case):
        case.body = bounded(case.body)
        case.headers = {**(case.headers or {}), **headers}
        response = case.call()
        case.validate_response(response)
        statuses.add(response.status_code)

    ask()
    if "chat" in operation.path or "completions" in operation.path:
        assert (200 in statuses) == (method.name == "positive"), statuses


def test_the_served_document_is_the_one_that_was_checked(demo_server):
    headers = {"Authorization": f"Bearer {demo_server['key']}"}
    assert httpx.get(demo_server["url"] + "/openapi.json", headers=headers, trust_env=False).json() == describe(MODEL)
