"""How images judge a new .env beside what runs."""

from subprocess import CompletedProcess

from host.start import rendered
from tests.conftest import ROOT

MOUNT = {"type": "volume", "target": "/x"}


def test_what_the_running_gateway_reads_is_not_written_over(monkeypatch):
    """Its volume is there; another gateway's configuration in it would come into force at the next reload."""
    monkeypatch.setattr(rendered, "run", lambda *command: CompletedProcess(command, 0))
    for name in ("gateway", "state"):
        assert f"{name}:/var/lib/lingbi" in (ROOT / "compose.yaml").read_text()  # so they are called there
    assert rendered.mount_options(MOUNT | {"source": "gateway"}, "lab") == ["--tmpfs=/x:uid=10001,gid=10001"]
    assert rendered.mount_options(MOUNT | {"source": "state"}, "lab") == ["--volume=lab_state:/x"]


def test_the_reason_is_told_and_not_dockers_word_of_its_help():
    """As docker 26 and earlier ones end what they say of LINGBI_SERVER_MEMORY=1m."""
    said = "docker: Error response from daemon: Minimum memory limit allowed is 6MB.\n"
    for word in ("\nRun 'docker run --help' for more information\n", "See 'docker run --help'.\n"):
        assert rendered.last_line(said + word) == said.strip()
