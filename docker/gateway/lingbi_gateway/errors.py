"""What the gateway itself answers when no server does: JSON for programs, a page for people."""

import json
from dataclasses import dataclass
from typing import Any

from lingbi_gateway.templates import fill


@dataclass(frozen=True)
class Fault:
    """seen: the status that nginx encounters; status, kind, code: what the client gets, as in the server's API."""

    seen: int
    status: int
    kind: str
    code: str
    english: str
    chinese: str
    comes_back: bool = False


ROUTER_LATE = 473  # what the router's 504 is answered as
BAD, LIMIT, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
FAULTS = (
    Fault(400, 400, BAD, "bad_request", "This request is no valid HTTP.", "这个请求不是有效的 HTTP 请求。"),
    Fault(403, 403, BAD, "forbidden", "Your address may not see this.", "您的地址无权查看此内容。"),
    Fault(404, 404, BAD, "not_found", "There is nothing at this address.", "这个地址上没有内容。"),
    Fault(
        405, 405, BAD, "method_not_allowed", "This address does not accept this method.", "这个地址不接受这种请求方法。"
    ),
    Fault(408, 408, BAD, "request_timeout", "The request came too slowly.", "请求发送得太慢，已经超时。"),
    Fault(
        413,
        413,
        BAD,
        "request_too_large",
        "The request is larger than {max_body_mib} MiB (an upload to the page: {max_upload_mib} MiB; a file of /v1/files or /batches: {max_file_mib} MiB). Send smaller or fewer pictures; base64 adds a third.",
        "请求超过了 {max_body_mib} MiB（上传到网页时为 {max_upload_mib} MiB，上传到 /v1/files 或 /batches 的文件为 {max_file_mib} MiB）。请使用更小或更少的图片；base64 编码会让图片增大三分之一。",
    ),
    Fault(414, 414, BAD, "uri_too_long", "The address is too long.", "请求地址过长。"),
    Fault(
        429,
        429,
        LIMIT,
        "rate_limited",
        "Too many requests. One API key may send {key_rate} a second and have {key_connections} at once "
        "(LINGBI_GATEWAY_KEY_RATE and _KEY_CONNECTIONS, for each server), one address {address_rate} and "
        "{address_connections} (LINGBI_GATEWAY_ADDRESS_RATE and _ADDRESS_CONNECTIONS). Try again in 2 s.",
        "请求过于频繁。一个 API 密钥每秒最多 {key_rate} 个请求，同时最多 {key_connections} 个"
        "（LINGBI_GATEWAY_KEY_RATE 和 _KEY_CONNECTIONS，按每台服务器计）；一个地址每秒最多 {address_rate} 个，同时最多 "
        "{address_connections} 个（LINGBI_GATEWAY_ADDRESS_RATE 和 _ADDRESS_CONNECTIONS）。请 2 秒后再试。",
    ),
    Fault(
        470,
        404,
        BAD,
        "not_found",
        "The path has two slashes in a row; let the client's base URL end with /v1, without another slash.",
        "路径中有两个连续的斜杠；请让客户端的基础地址以 /v1 结尾，后面不再有斜杠。",
    ),
    Fault(
        471,
        404,
        BAD,
        "not_found",
        "The API is under /v1: let the client's base URL end with /v1.",
        "API 在 /v1 之下：请让客户端的基础地址以 /v1 结尾。",
    ),
    Fault(
        472,
        400,
        BAD,
        "https_only",
        "This port speaks HTTPS: let the address begin with https://, with a name that the certificate is for.",
        "此端口只提供 HTTPS：地址请以 https:// 开头，并使用证书中的名称。",
    ),
    Fault(
        ROUTER_LATE,
        503,
        SERVER,
        "router_timeout",
        "The gateway has not found a server for this request within {router_timeout_s} s, and no server has seen it. Try again in a few seconds.",
        "网关在 {router_timeout_s} 秒内没有为这个请求找到服务器，也没有服务器收到过它。请过几秒再试。",
        comes_back=True,
    ),
    Fault(494, 431, BAD, "headers_too_large", "The request's headers are too large.", "请求头过大。"),
    Fault(500, 500, SERVER, "gateway_error", "The gateway failed; its log says why.", "网关出错，原因见网关日志。"),
    Fault(501, 501, BAD, "not_implemented", "The gateway does not know this form.", "网关不支持这种请求形式。"),
    Fault(
        502,
        503,
        SERVER,
        "not_ready",
        "The service is starting, being updated, or away. Try again in a few seconds.",
        "服务正在启动、更新，或暂时不可用。请过几秒再试。",
        comes_back=True,
    ),
    Fault(
        504,
        504,
        SERVER,
        "answer_timeout",
        "The server said nothing for {answer_timeout_s} s, so the gateway gave up. Try again.",
        "服务器在 {answer_timeout_s} 秒内没有任何响应，网关已放弃等待。请重试。",
        comes_back=True,
    ),
)
ROOT = "/_error"


def directives() -> str:
    """nginx's lines that send each status to its file; $error_form is json or html."""
    return "".join(_directive(fault.seen, fault) for fault in FAULTS)


def router_late() -> str:
    """nginx's line where it waits for the router: a timeout there is no server's."""
    return _directive(504, next(fault for fault in FAULTS if fault.seen == ROUTER_LATE))


def _directive(seen: int, fault: Fault) -> str:
    return f"error_page {seen} ={fault.status} {ROOT}/{fault.seen}.$error_form;\n"


def location(folder: str) -> str:
    """nginx's location of these files."""
    return f"""location {ROOT}/ {{
    internal;
    alias "{folder}/";
    types {{ application/json json; }}
    default_type "text/html; charset=utf-8";
}}
"""


def files(page: str, numbers: dict[str, Any]) -> dict[str, str]:
    """{file name: content} of all error answers. page: the page's template, with {{names}}."""
    made = {}
    for fault in FAULTS:
        english, chinese = fault.english.format(**numbers), fault.chinese.format(**numbers)
        error = {"message": english, "type": fault.kind, "param": None, "code": fault.code}
        made[f"{fault.seen}.json"] = json.dumps({"error": error}) + "\n"
        refresh = '<meta http-equiv="refresh" content="5">' if fault.comes_back else ""
        values = {"status": fault.status, "english": english, "chinese": chinese, "refresh": refresh}
        made[f"{fault.seen}.html"] = fill(page, values)
    return made
