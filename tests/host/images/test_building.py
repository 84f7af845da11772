"""What is said while an image is built: which, how far and how long, and the builder's own words only where it fails."""

import pytest

from host.errors import StartFailed
from host.images import building
from tests.host.machine import FakeMachine

LINES = """\
#1 [internal] load build definition from Dockerfile
#4 [base 2/3] RUN apt-get -qq update
#4 12.3 Get:1 something
#9 [environment 4/4] RUN <<EOS (python3.10 -m venv /tmp/tools...)
#9 33.0 Resolved 140 packages
"""


def test_progress_names_the_image_the_step_and_the_time(tmp_path):
    said = []
    script = f"printf %s '{LINES}'; while [ ! -e {tmp_path}/end ]; do sleep 0.05; done"

    def say(line: str) -> None:
        said.append(line)
        if "step" in line:
            (tmp_path / "end").touch()

    building.build(["sh", "-c", script], "lingbi/server:1.0.0 (1 of 3)", tmp_path / "logs/build.log", say, 0.05)
    assert (
        said[0]
        == f"image   building lingbi/server:1.0.0 (1 of 3); the builder's own lines are in {tmp_path}/logs/build.log"
    )
    assert any(line.endswith(" s: step environment 4/4") for line in said[1:-1])
    assert said[-1].startswith("image   lingbi/server:1.0.0 (1 of 3) is built, after ")
    assert "Resolved" not in "".join(said) and (tmp_path / "logs/build.log").read_text() == LINES


def test_a_build_that_fails_shows_the_end_of_its_log_and_where_all_of_it_is(tmp_path):
    script = "for line in $(seq 300); do echo line $line; done; echo no space left on device >&2; exit 1"
    with pytest.raises(StartFailed) as caught:
        building.build(["sh", "-c", script], "x", tmp_path / "build.log", lambda line: None)
    shown = str(caught.value).splitlines()
    assert shown[0].endswith(f"The end of {tmp_path}/build.log, which holds all:")
    assert shown[-1] == "no space left on device" and len(shown) == 1 + building.LAST_LINES
    assert len((tmp_path / "build.log").read_text().splitlines()) == 301


def test_the_builders_copy_of_the_dockerfile_does_not_hide_the_reason(tmp_path):
    """As BuildKit ends: the reason, 20 lines of the Dockerfile, and the command that failed."""
    copied = "".join(f"{number:>4} | >>> RUN this\n" for number in range(97, 118))
    said = f"#11 CERTIFICATE_VERIFY_FAILED\n------\nDockerfile:97\n{'-' * 20}\n{copied}{'-' * 20}\nERROR: failed to solve\n"
    (tmp_path / "said").write_text(said)
    with pytest.raises(StartFailed) as caught:
        building.build(["sh", "-c", f"cat {tmp_path}/said; exit 1"], "x", tmp_path / "build.log", lambda line: None)
    shown = str(caught.value)
    assert "docs/mirrors.md" in shown and shown.splitlines()[1:] == [
        "#11 CERTIFICATE_VERIFY_FAILED",
        "------",
        "ERROR: failed to solve",
    ]
    assert (tmp_path / "build.log").read_text() == said


def test_before_a_first_step_it_is_preparing():
    assert building.last_step(LINES.splitlines()[0]) == "preparing"


BUILDER = 'for line in $(seq 270); do echo "#7 line $line"; done'


@pytest.fixture
def builds(machine: FakeMachine):
    """A machine without images, whose engine builds each with 270 lines."""
    machine.have_docker(missing="exit 1", build=BUILDER)
    (machine.folder / "seq").symlink_to("/usr/bin/seq")
    return machine


def test_scripts_up_hides_the_builders_lines_unless_they_are_asked_for(builds, root):
    done = builds.run(root, "host.start.up")
    told = [line for line in done.stderr.splitlines() if line.startswith("image ")]
    for number, name in enumerate(("server", "ui", "gateway"), 1):
        assert any(f"lingbi/{name}:" in line and f"({number} of 3) is built, after" in line for line in told), told
        assert (root / f".lingbi/logs/build-{name}.log").read_text().count("\n") == 270
    assert "#7 line" not in done.stderr + done.stdout and len(told) == 6
    done = builds.run(root, "host.start.up", "--verbose")
    assert (done.stderr + done.stdout).count("#7 line") == 3 * 270
