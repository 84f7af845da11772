"""A stand-in for the published image of PostgreSQL, made of Debian's package, where that cannot be pulled."""

import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.containers.bases import PREFIX, ROOT, ensure_debian, is_here, one_at_a_time

REGISTRY = f"{PREFIX}/"
# What lingbi relies on of the published image's own docker-entrypoint.sh, and no more.
ENTRY = """\
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086 # several options
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait --mode=fast stop
fi
exec "$@"
"""
DOCKERFILE = """\
FROM {debian}
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \\
    && apt-get -qq update && mkdir -p /etc/postgresql-common \\
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \\
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql >/dev/null \\
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* && ln -s /usr/lib/postgresql/*/bin /usr/local/postgresql \\
    && install -d -o 999 -g 999 -m 1777 /var/lib/postgresql/data
COPY --chmod=0755 entry /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/local/postgresql:/usr/local/bin:/usr/bin:/bin
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
"""


def ensure_postgres() -> str:
    """The stand-in's tag, which compose.yaml names where LINGBI_BASE_REGISTRY is REGISTRY; built where it is missing."""
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["postgres"]["image"]
    tag = image.replace("${LINGBI_BASE_REGISTRY:-}", REGISTRY)
    debian = ensure_debian()
    with one_at_a_time:
        if not is_here(tag):
            _build(debian, tag)
    return tag


def _build(debian: str, tag: str) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "entry").write_text(ENTRY)
        (Path(folder) / "Dockerfile").write_text(DOCKERFILE.format(debian=debian))
        command = ["docker", "build", "--network=host", f"--tag={tag}", folder]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{tag}: {done.stderr[-3000:]}")
