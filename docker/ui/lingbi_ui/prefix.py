"""Lets the page be served below a path, as in https://lab.example/lingbi/.

Gradio knows one such path for a whole process; here each request's counts, as the gateway passes it on from a trusted
proxy, so that the page answers at its own address too.
"""

from collections.abc import Callable
from functools import partial

from gradio import route_utils
from starlette.requests import Request

from lingbi_ui import PREFIX_HEADER

RootUrl = Callable[[Request, str, str | None], str]


def serve_below_prefixes() -> None:
    """Have the URLs that Gradio gives to a browser begin with the prefix of the browser's request."""
    route_utils.get_root_url = partial(root_url, route_utils.get_root_url)


def root_url(gradios: RootUrl, request: Request, route_path: str, root_path: str | None) -> str:
    """Gradio's own URL of the page's root, below the prefix of the request where it has one."""
    return gradios(request, route_path, request.headers.get(PREFIX_HEADER) or root_path)
