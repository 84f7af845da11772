"""The checks of scripts/smoke that need a gateway in front: they check the gateway and the page behind it."""

import uuid

from lingbi.smoke.checks import Target, check, expect

UNAUTHORIZED = 401


def has_gateway(target: Target) -> bool:
    return target.has_gateway and target.is_first


@check("gateway", applies=has_gateway)
def gateway(target: Target) -> str:
    """Request ids pass through, the gateway's own errors have the API's format, and it does not reveal its version."""
    sent = f"smoke-{uuid.uuid4().hex}"
    response = target.client.get("/v1/models", headers=target.headers | {"X-Request-ID": sent})
    seen = response.headers.get_list("x-request-id")
    expect(seen == [sent], f"X-Request-ID {sent} came back as {seen}")
    expect(response.headers.get("server") == "nginx", f"Server: {response.headers.get('server')}")
    expect(response.headers.get("x-content-type-options") == "nosniff", "no security headers")
    refused = target.client.get("/v1/..%2fmetrics")
    expect(refused.status_code == 400, f"/v1/..%2fmetrics: status {refused.status_code}")
    return str(refused.json()["error"]["message"])


@check("page", applies=has_gateway)
def page(target: Target) -> str:
    """The gateway serves the page, and the server accepts the page's own key."""
    response = target.client.get("/")
    expect(response.status_code == 200, f"status {response.status_code}")
    expect("<gradio-app" in response.text, "this is not lingbi's page")
    health = target.client.get("/page-health")
    expect(health.status_code == 200, f"the page cannot ask the model: {health.text[:200]}")
    told = target.client.get("/state")
    if told.status_code == UNAUTHORIZED:
        return f"{len(response.content)} bytes, for those with a login"
    state = told.json()
    shown = {model["id"] for model in state.get("models", [])} or {state["model"]}
    expect(shown == {target.model, *target.others}, f"the page shows {', '.join(sorted(map(str, shown)))}")
    return f"{len(response.content)} bytes, {state['phase']}"
