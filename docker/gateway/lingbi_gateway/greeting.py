"""What the gateway says at its start: where it is published, where the key is, and a line to paste."""

from lingbi_gateway.settings import Settings

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
KEY = "docker compose exec -T server lingbi key show"


def greeting(settings: Settings) -> str:
    """The lines; empty where nobody said under which address this gateway is published."""
    if not settings.published:
        return ""
    host, _, port = settings.published.rpartition(":")
    scheme, insecure = ("http", "") if settings.tls == "off" else ("https", "k")
    url = f"{scheme}://{EVERYWHERE.get(host, host)}:{port}"
    return (
        f"lingbi answers at {url} (page) and {url}/v1 (API); the API key: {KEY}\n"
        f"{url}/batches shows the batches of a key, and {url}/admin keys, quotas and use to an administrator\n"
        f'try it: curl -s{insecure} {url}/v1/models -H "Authorization: Bearer $({KEY})"'
    )
