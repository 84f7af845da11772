"""Which tests are fast: those that start no server, page, gateway, container, browser, lab or training.

`scripts/test --fast` runs these and looks at no others; a plugin of tests/conftest.py.
"""

import pytest

FOLDERS = ("browser", "gateway", "gpu", "images", "load", "system", "training", "weights")  # of tests/
FILES = (  # of those that have no such fixture: a process for each test, or seconds of a model
    "tests/server/bench/test_bench.py",
    "tests/server/launch/test_entrypoint.py",
    "tests/server/model/test_demo_weights.py",
    "tests/server/worker/test_succession.py",
    "tests/server/test_imports.py",
    "tests/server/cli/test_pipeline.py",
    "tests/test_style.py",  # scripts/check is that
    "tests/ui/test_idleness.py",
)
FIXTURES = {
    "any_database",
    "bare_lab",
    "chromium",
    "controller",
    "demo_server",
    "demo_stack",
    "docker_engine",
    "fake_api",
    "lonely_page",
    "page",
    "postgres",
    "watched",
}
LEFT_OUT = tuple(f"tests/{folder}" for folder in FOLDERS) + FILES


def pytest_ignore_collect(collection_path, config):
    """Do not even import what --fast leaves out: that takes longer than all fast tests."""
    if not is_asked(config):
        return None
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if path in LEFT_OUT else None


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(config, items):
    for item in items:
        path = item.path.relative_to(config.rootpath).as_posix()
        if not path.startswith(LEFT_OUT) and not FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.fast)


def pytest_terminal_summary(terminalreporter, config):
    if is_asked(config):
        names = ", ".join((*LEFT_OUT, *sorted(FIXTURES)))
        terminalreporter.line(f"left out as not fast, by file and fixture: {names}")


def is_asked(config) -> bool:
    return config.option.markexpr == "fast"
