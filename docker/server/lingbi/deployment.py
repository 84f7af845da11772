"""Settings of a machine's containers: read by compose.yaml and scripts/up from .env, tolerated by the server.

Standard library only, so that scripts/up can read them on a machine that has nothing installed.
"""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "LINGBI_"
OTHER_PREFIXES = ("LINGBI_UI_", "LINGBI_GATEWAY_")  # settings of other parts, checked by those


class Setting(NamedTuple):
    """One setting: its name without the prefix, what scripts/up writes (None: only where needed), and its meaning."""

    name: str
    default: str | None
    help: str
    chinese: str


SETTINGS = (
    Setting(
        "VERSION",
        None,
        "tag of the images; a version, never `latest`",
        "镜像的标签；必须是版本号，不能是 `latest`",
    ),
    Setting(
        "IMAGE_PREFIX",
        "lingbi/",
        "what stands before the images' names: a registry and a folder, with a slash",
        "镜像名之前的部分：镜像仓库和目录，以斜杠结尾",
    ),
    Setting(
        "PUBLISH_ADDRESS",
        "127.0.0.1",
        "address of this machine on which the gateway is published",
        "网关在本机哪个地址上开放",
    ),
    Setting(
        "GPU_COUNT",
        "all",
        "GPUs of the server: a number, or `all`",
        "服务器使用的 GPU 数量，或 `all`",
    ),
    Setting(
        "GPU_IDS",
        None,
        "GPUs by index, UUID or MIG slice, with commas (compose.gpu-ids.yaml)",
        "按序号、UUID 或 MIG 切片指定 GPU，用逗号分隔（compose.gpu-ids.yaml）",
    ),
    Setting(
        "MODEL_FOLDER",
        None,
        "weights that are there already, read-only (compose.model-folder.yaml)",
        "已有的权重文件夹，只读（compose.model-folder.yaml）",
    ),
    Setting(
        "SERVER_ADDRESS",
        None,
        "address on which the server is published (compose.model-host.yaml)",
        "服务器在哪个地址上开放（compose.model-host.yaml）",
    ),
    Setting(
        "SERVER_PORTS",
        None,
        "ports of the workers, as in 23333-23340 (compose.model-host.yaml)",
        "工作进程的端口，例如 23333-23340（compose.model-host.yaml）",
    ),
    Setting(
        "SERVER_MEMORY",
        "0",
        "most memory of the server, as in 32g; 0: no limit",
        "服务器最多使用的内存，例如 32g；0 表示不限",
    ),
    Setting(
        "SERVERS_FOLDER",
        None,
        "folder with the gateway's list of servers (compose.servers-folder.yaml)",
        "网关的服务器列表所在文件夹（compose.servers-folder.yaml）",
    ),
    Setting(
        "AGENTS_ADDRESS",
        None,
        "address on which exporters run alone, for a Prometheus elsewhere (compose.agents.yaml)",
        "单独运行导出器时开放的地址，供别处的 Prometheus 使用（compose.agents.yaml）",
    ),
    Setting(
        "GATEWAY_PROJECT",
        None,
        "Compose project of the gateway that they watch (compose.agents.yaml)",
        "导出器所监控的网关的 Compose 项目名（compose.agents.yaml）",
    ),
    Setting(
        "TLS_FOLDER",
        None,
        "folder with certificate.pem and key.pem (compose.tls.yaml)",
        "含 certificate.pem 和 key.pem 的文件夹（compose.tls.yaml）",
    ),
    Setting(
        "STOP_GRACE",
        "90s",
        "longest end of server, page and gateway; more than LINGBI_DRAIN_TIMEOUT_S and 15 s",
        "停止服务器、网页和网关的最长时间；须大于 LINGBI_DRAIN_TIMEOUT_S 加 15 秒",
    ),
    Setting(
        "SUBNET",
        "172.30.76",
        "first three numbers of the containers' own network",
        "容器内部网络的前三段数字",
    ),
    Setting(
        "MONITORING_ADDRESS",
        "127.0.0.1",
        "address on which Grafana is published",
        "Grafana 在哪个地址上开放",
    ),
    Setting(
        "MONITORING_PORT",
        "3000",
        "port on which Grafana is published",
        "Grafana 开放的端口",
    ),
)
NAMES = frozenset(PREFIX + setting.name for setting in SETTINGS)


def is_another_parts(key: str) -> bool:
    """Whether a variable is a setting that the server need not know."""
    return key in NAMES or key.startswith(OTHER_PREFIXES)
