"""A batch of some thousand lines beside a small one, and that the run can fail; `python -m tests.load.batch_size` has 100 000."""

import json

from tests.load import batch_size


def test_two_thousand_lines_are_made_validated_listed_and_cancelled(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "MOST_S", 20.0)  # a busy machine; the whole run has the bound
    to = tmp_path / "found.json"
    assert batch_size.main(["--lines=2000", "--small=20", "--seconds=3", f"--to={to}"]) == 0
    found = json.loads(to.read_text())
    assert found["large"]["lines"] == 2000 and found["large"]["lines_run"] >= 1 and not found["large"]["failed"]


def test_the_run_sees_memory_that_grows_and_lists_that_wait():
    calm = {"make_s": 0.01, "list_max_s": 0.3, "list_validating_max_s": 0.3}
    assert batch_size.faults_of({"growth_mib": 10, "large": calm}) == []
    assert batch_size.faults_of({"growth_mib": 65, "large": calm}) == ["memory grew by 65 MiB, more than 64"]
    for name in calm:
        assert batch_size.faults_of({"growth_mib": 0, "large": calm | {name: 1.2}}) == [f"{name} is 1.2, more than 1.0"]
