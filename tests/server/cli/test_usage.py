"""scripts/usage: tables whose columns stand below each other, CSV that computes nothing, and what it refuses."""

import csv
import io
import json
from zoneinfo import ZoneInfo

import pytest

from lingbi.accounts.database import Database, parse_url
from lingbi.batch.store import store_of
from lingbi.cli.usage import main
from lingbi.cli.usage_table import as_json, as_table, cell, width
from lingbi.settings import Settings
from tests.server.accounts.usage.rows import entries, fill
from tests.server.batch.holdings import answered, of, upload

SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Runs the command over a database with usage; returns (exit status, output, errors)."""
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LINGBI_TIME_ZONE", "Asia/Shanghai")
    fill(parse_url(f"sqlite:///{tmp_path}/accounts/accounts.db"), SHANGHAI, entries(SHANGHAI)).engine.dispose()

    def run(*arguments):
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run


def test_a_table_has_a_row_of_sums(ask):
    status, output, _ = ask("--by", "owner,key", "--since", "2026-01")
    lines = output.splitlines()
    assert status == 0 and lines[0].split()[:4] == ["owner", "key", "requests", "prompt"]
    total = [int(word) for word in lines[-1].split()[1:-1]]
    assert [sum(int(line.split()[2 + column]) for line in lines[1:-1]) for column in range(5)] == total
    assert len({width(line) for line in lines}) == 1  # the last column is at the right


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("李明", 4), ("e\u0301", 1), ("ｆ", 2), ("", 0)])
def test_chinese_characters_are_two_columns_wide(text, columns):
    assert width(text) == columns


def test_nothing_in_a_name_moves_the_terminal():
    row = {"key": "a\x1b[2J\n", "requests": 1} | dict.fromkeys(
        ("prompt_tokens", "cached_tokens", "completion_tokens", "images"), 0
    )
    table = as_table([row | {"gpu_seconds": 0.0}], ("key",))
    assert "\x1b" not in table and len(table.splitlines()) == 2


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_name_that_a_spreadsheet_would_compute_is_text(name):
    assert cell(name) == f"'{name}"
    assert cell("a=b") == "a=b" and cell(-1) == -1


@pytest.mark.parametrize("tables", [{}, {"a": []}, {"a": [], "b": [{"x": 1, "y": '"\n'}, {"x": None}], "c": [{}]}])
def test_tables_in_pieces_are_the_same_json(tables):
    assert json.loads("".join(as_json(tables.items()))) == tables


def test_csv_of_a_month_has_every_row_once(ask):
    status, output, _ = ask("--month", "2026-02", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert status == 0 and {"owner", "group", "key", "model", "requests", "gpu_seconds"} <= set(rows[0])
    assert len({(row["key"], row["model"]) for row in rows}) == len(rows)
    assert "'=c" in {row["key"] for row in rows} and "=c" not in {row["key"] for row in rows}
    _, whole, _ = ask("--by", "month", "--since", "2026-02", "--until", "2026-02", "--json")
    assert sum(int(row["requests"]) for row in rows) == json.loads(whole)[0]["requests"]


def test_one_owner_is_exported_and_erased(ask):
    status, output, _ = ask("export", "--owner", "李")
    assert status == 0 and {row["key"] for row in json.loads(output)["usage_hours"]} == {"a", "b"}
    assert ask("erase", "--owner", "李")[0] == 0
    status, _, errors = ask("export", "--owner", "李")
    assert status == 2 and "nobody has a key with the owner" in errors
    assert "(erased)" in ask("--by", "key")[1]


def test_an_owners_files_and_results_are_exported_and_erased_too(ask, tmp_path):
    store = store_of(Settings(state_dir=tmp_path), Database(parse_url(f"sqlite:///{tmp_path}/accounts/accounts.db")))
    for owner, answer in (("a", "它是红色"), ("ui/wang", "它是蓝色")):
        answered(store, owner, upload(store, owner, b"x", f"{answer}.jsonl"), answer)
    status, output, _ = ask("export", "--owner", "李")
    given = json.loads(output)
    assert status == 0 and [row["filename"] for row in given["files"]][0] == "它是红色.jsonl"
    assert "它是红色" in given["batch_lines"][0]["result"] and len(given["batches"]) == 1 and "蓝" not in output
    status, output, _ = ask("erase", "--owner", "李")
    assert status == 0 and "removed: files: 2, batches: 1, results: 1" in output
    assert of(store, "a") == ([], []) and [len(held) for held in of(store, "ui/wang")] == [2, 1]
    assert len(list((tmp_path / "files").iterdir())) == 1
    store.database.engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--by", "colour"), "by 'colour'"),
        (("--status", ""), "status '' is no status"),
        (("--status", "9" * 30), "is no status of an answer"),
        (("--model", "a\0b"), "has a control character"),
        (("--since", "0001-01-01", "--until", "0001-01-01"), "is no time"),
        (("--since", "yesterday"), "since 'yesterday' is no time"),
        (("--month", "2026-02", "--since", "2026-01"), "--month says both ends"),
        (("erase",), "Give --owner NAME"),
        (("export", "--owner", "a", "--key", "b"), "Give --owner NAME"),
        (("--top", "0"), "top 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask, arguments, fault):
    status, output, errors = ask(*arguments)
    assert status == 2 and fault in errors and not output


def test_a_lab_without_use_has_a_head(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    assert main([]) == 0
    assert capsys.readouterr().out.split()[0] == "key"
