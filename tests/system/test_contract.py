"""What the OpenAPI document says is what is served: schemathesis asks, with good and with bad data."""

import httpx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi import checks

from lingbi.http.describing.document import describe

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
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EVENTS = "text/event-stream"  # described as a text as a whole, which schemathesis takes for the schema of each event
DOCUMENT = describe(MODEL)
SCHEMA = openapi.from_dict(DOCUMENT)
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]


def bounded(body):
    """Answers of a test are short, those to bodies that are wrong in what nobody reads too; everything else stays as it was made."""
    if not isinstance(body, dict):
        return body
    limit = "max_output_tokens" if "input" in body else "max_tokens"
    asked = body.get(limit)
    return body | {limit: 4} if asked is None or (isinstance(asked, int) and asked > 4) else body


# What has neither body nor parameters cannot be asked wrongly, nor can a path that is one word of text.
ASKED = [
    (op, mode)
    for op in OPERATIONS
    for mode in GenerationMode
    if (op.method == "post" and "requestBody" in DOCUMENT["paths"][op.path]["post"]) or mode is GenerationMode.POSITIVE
]


@pytest.mark.parametrize(("operation", "mode"), ASKED, ids=lambda item: getattr(item, "path", None) or item.value)
def test_no_breach_and_no_5xx(demo_server, operation, mode):
    headers = {"Authorization": f"Bearer {demo_server['key']}"}
    statuses = {}

    @given(case=operation.as_strategy(generation_mode=mode))
    @BOUNDED
    def ask(case):
        of_body = case.meta.components.get(ParameterLocation.BODY)
        assume(of_body is None or of_body.mode is mode)  # wrong headers have tests of their own
        case.body = bounded(case.body)
        case.headers = {**(case.headers or {}), **headers}
        response = case.call(base_url=demo_server["url"])
        is_stream = EVENTS in response.headers.get("content-type", [""])[0]
        case.validate_response(response, checks=CHECKS[:-1] if is_stream else CHECKS)
        statuses[response.status_code] = case.body

    ask()
    if "chat" in operation.path or "completions" in operation.path:
        assert (200 if mode is GenerationMode.POSITIVE else 400) in statuses, statuses


def test_the_served_document_is_the_one_that_was_checked(demo_server):
    headers = {"Authorization": f"Bearer {demo_server['key']}"}
    assert httpx.get(demo_server["url"] + "/openapi.json", headers=headers, trust_env=False).json() == describe(MODEL)
