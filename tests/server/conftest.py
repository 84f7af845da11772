"""A door with no model behind it, for what is decided before the engine is asked."""

import contextlib
import time
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.key_file import Key, digest, save_keys
from lingbi.accounts.ring import KeyRing
from lingbi.batch.store import store_of
from lingbi.heartbeat import Pulse
from lingbi.http.readiness import READY, Readiness
from lingbi.settings import Settings
from lingbi.vision.cache import FeatureCache

KEY = {"Authorization": "Bearer secret"}


class NoEngine:
    """As much of lmdeploy's engine as a generator needs before it is asked anything."""

    gens_set, session_len, prompt_form, tokenizer = {1}, 4096, None, None
    vl_encoder = SimpleNamespace(pulse=Pulse(), cache=FeatureCache(0))


@pytest.fixture
def settings():
    return Settings()


@pytest.fixture
def service(tmp_path, settings):
    from lingbi.heartbeat import Vitals
    from lingbi.http.metrics import Metrics
    from lingbi.http.service import Service

    save_keys(tmp_path / "keys", [Key("other", digest(b"other")), Key("one", digest(b"secret"))])
    readiness = Readiness("model", "cpu", "a test")
    return Service(settings, readiness, KeyRing(tmp_path / "keys"), Metrics(), Vitals())


@pytest.fixture
def client(service):
    from lingbi.http.app import create_app

    return TestClient(create_app(service), raise_server_exceptions=False)


@pytest.fixture
def ready(client, service):
    """The client of a worker that is ready, though its engine answers nothing."""
    service.take_engine(NoEngine(), 1)
    service.readiness.enter(READY)
    return client


@pytest.fixture
def store(tmp_path, settings):
    """A store of files and batches in SQLite and a folder."""
    database = Database(parse_url(f"sqlite:///{tmp_path}/accounts.db"))
    database.bring_up_to_date()
    yield store_of(settings.model_copy(update={"state_dir": tmp_path}), database)
    database.engine.dispose()


DAYS_S = 40 * 86400


@pytest.fixture(params=[-DAYS_S, DAYS_S], ids=["behind", "ahead"])
def wrong_host(request, monkeypatch):
    """A context in which the host's clock is so far off."""
    real = time.time

    @contextlib.contextmanager
    def there():
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + request.param)
            yield

    return there
