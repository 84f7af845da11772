"""The server's entrypoint and weights: a local hub, a volume, and what can go wrong between them."""

import contextlib
import uuid

import pytest

from tests.containers.images import docker, worrying
from tests.images.conftest import EXPECTED, HARDENED, logs, running, wait_exit, wait_healthy
from tests.weights.conftest import MIB, MODEL, hub, make_model  # noqa: F401 - hub is a fixture

ON_HOST = ("--network=host",)
FOLDER = "/models/lab--model"
# What a fetch says of what these tests did to it, each with its reason.
OF_FETCHES = {"extra.dat": "a damaged shard is reported and fetched again"}


@contextlib.contextmanager
def new_volume(*options: str):
    name = f"lingbi-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", *options, name)
    try:
        yield name
    finally:
        docker("volume", "rm", "--force", name)


@pytest.fixture
def volume(docker_engine):
    with new_volume() as name:
        yield name


def asking(hub, volume: str, **settings) -> list:  # noqa: F811
    values = {"LINGBI_HUB_ENDPOINT": hub.url, "LINGBI_MODEL": MODEL, "LINGBI_FETCH_PATIENCE_S": "3"} | settings
    return [f"--volume={volume}:/models", *(f"--env={name}={value}" for name, value in values.items())]


def fetch(image: str, hub, volume: str, **settings):  # noqa: F811
    """The image's `fetch`, to its end; where it succeeds its log holds nothing unexpected."""
    done = docker("run", "--rm", *ON_HOST, *HARDENED, *asking(hub, volume, **settings), image, "fetch", check=False)
    assert done.returncode or worrying(done.stdout + done.stderr, EXPECTED | OF_FETCHES) == []
    return done


def in_volume(image: str, volume: str, command: str) -> str:
    options = ("--rm", "--network=none", "--user=0", f"--volume={volume}:/models", "--entrypoint=sh")
    return docker("run", *options, image, "-c", command).stdout


def test_a_first_start_fetches_and_a_second_asks_nobody(server_image, hub, volume):  # noqa: F811
    from tests.conftest import free_port

    for expected in (True, False):
        hub.requests.clear()
        options = (*ON_HOST, *HARDENED, f"--env=LINGBI_PORT={free_port()}")
        with running(server_image, *asking(hub, volume), options=options) as name:
            wait_healthy(name)
            said = logs(name)
        assert bool(hub.requests) is expected, said
        assert worrying(said, EXPECTED) == []


def test_sigterm_ends_a_fetch_at_once_and_the_next_goes_on(server_image, hub, volume):  # noqa: F811
    hub.faults.rate = MIB // 4
    with running(server_image, *asking(hub, volume), "fetch", options=(*ON_HOST, *HARDENED)) as name:
        from lingbi.launch.supervision import wait_until

        assert wait_until(lambda: "fetching weights" in logs(name), 60), logs(name)
        docker("stop", "--time=30", name)
        assert wait_exit(name) == 143, logs(name)
    hub.faults.rate = 0
    assert fetch(server_image, hub, volume).returncode == 0


def test_a_spoiled_shard_comes_again(server_image, hub, volume):  # noqa: F811
    assert fetch(server_image, hub, volume).returncode == 0
    in_volume(server_image, volume, f"printf spoiled | dd of={FOLDER}/extra.dat conv=notrunc status=none")
    hub.requests.clear()
    assert fetch(server_image, hub, volume).returncode == 0
    assert any("extra.dat" in line for line in hub.paths())
    hub.requests.clear()
    assert fetch(server_image, hub, volume).returncode == 0 and hub.requests == []


def test_a_hub_that_is_gone_stops_a_first_start_only(server_image, hub, volume):  # noqa: F811
    hub.faults.is_gone = True
    done = fetch(server_image, hub, volume)
    assert (
        done.returncode == 3 and "no new byte has arrived for" in done.stderr and "Traceback" not in done.stderr
    ), done.stderr
    hub.faults.is_gone = False
    assert fetch(server_image, hub, volume).returncode == 0
    hub.faults.is_gone = True
    assert fetch(server_image, hub, volume).returncode == 0


def test_a_full_volume_is_told_with_numbers(server_image, hub):  # noqa: F811
    with new_volume("--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=4m,mode=1777") as small:
        done = fetch(server_image, hub, small)
    assert done.returncode == 2 and "free" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(("mode", "said"), [(0o700, "cannot be read by"), (0o755, "cannot be written by")])
def test_a_volume_of_root(server_image, hub, tmp_path, mode, said):  # noqa: F811
    tmp_path.chmod(mode)
    done = fetch(server_image, hub, str(tmp_path))
    assert done.returncode == 2 and f"LINGBI_MODELS_DIR='/models' {said} user 10001" in done.stderr, done.stderr


def test_two_services_on_one_volume_fetch_once(server_image, hub, volume):  # noqa: F811
    hub.faults.rate = MIB
    options = (*ON_HOST, *HARDENED)
    with (
        running(server_image, *asking(hub, volume), "fetch", options=options) as one,
        running(server_image, *asking(hub, volume), "fetch", options=options) as two,
    ):
        assert (wait_exit(one), wait_exit(two)) == (0, 0), logs(one) + logs(two)
        assert worrying(logs(one) + logs(two), EXPECTED) == []
    assert sum(hub.sent.values()) < 2 * sum(
        path.stat().st_size for path in (hub.root / MODEL).iterdir() if path.is_file()
    )
