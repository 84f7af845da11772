"""scripts/lab images: build the three images where they are missing, push them into a lab's registry, and print lines for lab.yml."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

from host import commands, stack
from host.env_file import PREFIX_FILE, ROOT
from host.errors import Refusal, StartFailed
from host.machine import look, run
from host.preflight import check_engine
from host.schema import default_of

REGISTRY = re.compile(r"(?P<host>[A-Za-z0-9.-]+(:[0-9]+)?)(?P<path>(/[a-z0-9]+([._-][a-z0-9]+)*)*)/?")
OWN_PATH = "/lingbi"  # where the registry is given without a path
NO_TAG = "is-it-reached"  # no image has this tag: the registry says so, or cannot be asked
REVISION = "org.opencontainers.image.revision"
REMEDIES = {  # what Docker says of a registry: what to do; {host} is the registry's
    "HTTP response to HTTPS client": 'it has no https; add {{"insecure-registries": ["{host}"]}} to /etc/docker/daemon.json '
    "here and restart Docker",
    "certificate": "put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt",
    "unauthorized|no basic auth": "run: docker login {host}",
    "no such host|refused|timeout|unreachable|no route|deadline": "check its address, and that it runs",
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all are in the registry, 2 refused before anything was built, 3 an image could not be built or pushed."""
    options = parse(arguments)
    try:
        print(bring(options))
    except (Refusal, StartFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/lab images", description=__doc__.split(": ", 1)[1].capitalize())
    parser.add_argument(
        "--registry", required=True, help="HOST[:PORT][/PREFIX], as in registry.lab:5000 (prefix: lingbi)"
    )
    parser.add_argument("--version", default=(ROOT / "VERSION").read_text().strip(), help="tag of the images")
    parser.add_argument("--from", dest="source", default=own_prefix(), help="what precedes the images' names here")
    parser.add_argument("--as-is", action="store_true", help="push images of another commit than this checkout's too")
    return parser.parse_args(arguments)


def own_prefix() -> str:
    """What precedes the images' names on this machine: as in scripts/up, or as this folder's bundle has them."""
    return PREFIX_FILE.read_text().strip() if PREFIX_FILE.is_file() else default_of("LINGBI_IMAGE_PREFIX")


def bring(options: argparse.Namespace) -> str:
    """Build what is missing and push all; the lines for lab.yml. Raises Refusal or StartFailed."""
    host, prefix = place_of(options.registry)
    check_engine(look())
    check_registry(host, prefix)
    values = {**commands.values(), "LINGBI_IMAGE_PREFIX": options.source, "LINGBI_VERSION": options.version}
    if not options.as_is:
        check_revisions([stack.image(values, name) for name in stack.SERVICES])
    stack.have_images(values, say)
    digests = {name: push(stack.image(values, name), f"{prefix}{name}", options.version) for name in stack.SERVICES}
    return lines_of(options.version, prefix, digests, host if is_insecure(host) else None)


def place_of(registry: str) -> tuple[str, str]:
    """(host, prefix of the images' names) of a registry. Raises Refusal."""
    match = REGISTRY.fullmatch(registry)
    prefix = f"{match['host']}{match['path'] or OWN_PATH}/" if match else ""
    if not match or not stack.is_registry(prefix):
        raise Refusal(f"--registry {registry}: give HOST[:PORT][/PREFIX] without http://, as in registry.lab:5000")
    return match["host"], prefix


def check_registry(host: str, prefix: str) -> None:
    """Raise Refusal if Docker cannot use the registry: a build takes minutes, and would be for nothing."""
    said = run("docker", "pull", f"{prefix}{stack.SERVICES[0]}:{NO_TAG}").stderr.strip()
    remedy = remedy_of(said, host)
    if remedy:
        raise Refusal(f"the registry {host} cannot be used from here: {said[-300:]}; {remedy}")


def remedy_of(said: str, host: str) -> str:
    """What to do about Docker's words on a registry; empty where they tell of no fault that is known. Pure."""
    return next((text.format(host=host) for words, text in REMEDIES.items() if re.search(words, said)), "")


def check_revisions(tags: list[str]) -> None:
    """Raise Refusal for images that are here and were built from another commit than this checkout's."""
    here = run("git", "-C", str(ROOT), "rev-parse", "HEAD").stdout.strip()
    built = {
        tag: run("docker", "inspect", "--format", f'{{{{index .Config.Labels "{REVISION}"}}}}', tag) for tag in tags
    }
    stale = stale_of({tag: done.stdout.strip() for tag, done in built.items() if done.returncode == 0}, here)
    if stale:
        raise Refusal(
            f"{', '.join(stale)}: built from another commit than this checkout's {here[:12]}; `docker image rm "
            f"{' '.join(stale)}` has this command build anew, --as-is pushes what is here"
        )


def stale_of(revisions: dict[str, str], here: str) -> list[str]:
    """The images of another commit, as far as image and checkout tell theirs. Pure."""
    return [tag for tag, revision in revisions.items() if here and revision not in ("", "unknown", here)]


def push(source: str, repository: str, version: str) -> str:
    """Push an image of this machine; its digest in the registry. Raises StartFailed."""
    target = f"{repository}:{version}"
    say(f"image   pushing {target}")
    run("docker", "tag", source, target)
    done = subprocess.run(["docker", "push", target], stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        host = repository.split("/")[0]
        raise StartFailed(f"{target} could not be pushed: {done.stderr.strip()[-300:]}; {remedy_of(done.stderr, host)}")
    listed: list[str] = json.loads(run("docker", "inspect", "--format", "{{json .RepoDigests}}", target).stdout)
    return next(name.split("@")[1] for name in listed if name.startswith(f"{repository}@"))


def is_insecure(host: str) -> bool:
    """Whether this machine's engine was told that the registry has no https, as the hosts' engines must be too."""
    told = run("docker", "info", "--format", "{{json .RegistryConfig.IndexConfigs}}").stdout.strip()
    return bool(told) and (json.loads(told) or {}).get(host, {}).get("Secure") is False


def lines_of(version: str, prefix: str, digests: dict[str, str], insecure: str | None) -> str:
    """The lines for lab.yml, below `all: vars:`. Pure."""
    listed = ", ".join(f"{name}: '{digest}'" for name, digest in digests.items())
    lines = ["# for lab.yml, below all: vars:", f"lingbi_version: '{version}'", f"lingbi_image_prefix: {prefix}"]
    lines += ["lingbi_image_digests:", f"  '{version}': {{{listed}}}"]
    return "\n".join(
        [*lines, *([f"lingbi_docker_daemon: {{insecure-registries: ['{insecure}']}}"] if insecure else [])]
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
