"""scripts/pipeline on the demo model: rows, unreadable files, resuming."""

import functools
import json
import os
import re
import threading
import urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lingbi.cli.pipeline import main, read_form
from lingbi.cli.rows import Rows, to_text
from lingbi.errors import ConfigurationError
from lingbi.images.scenes import Scene, Thing, draw
from lingbi.images.sources import Sources, name_of
from tests.conftest import lingbi

FIELDS = {"source", "prompt", "text", "input_token_len", "generate_token_len", "finish_reason"}
COLOURS = {"red": "红", "blue": "蓝", "green": "绿"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with three pictures, one of them deeper, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deeper").mkdir()
    for name, colour in (("a.png", "red"), ("b.jpg", "blue"), ("deeper/c.webp", "green")):
        draw(Scene((Thing(colour, "circle"),))).save(folder / name)
    (folder / "bad.png").write_text("no picture")
    (folder / "notes.txt").write_text("ignored")
    return folder


def pipeline(tmp_path, *arguments, **environment):
    return lingbi("pipeline", "--model", "demo", "--engine", "cpu", *arguments, state_dir=tmp_path / "s", **environment)


def read(file) -> list:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_folder_is_described_and_a_bad_file_is_in_its_row(images, tmp_path):
    out = tmp_path / "rows.jsonl"
    (tmp_path / "temporary").mkdir()
    done = pipeline(tmp_path, images, "--to", out, "--batch", 2, TMPDIR=str(tmp_path / "temporary"))
    rows = {row["source"].split("/")[-1]: row for row in read(out)}
    assert done.returncode == 1 and "3 answered, 1 failed" in done.stderr
    assert rows.keys() == {"a.png", "b.jpg", "bad.png", "c.webp"}
    assert "cannot be decoded" in rows["bad.png"]["error"]
    for name, colour in (("a.png", "red"), ("b.jpg", "blue"), ("c.webp", "green")):
        assert rows[name].keys() == FIELDS and COLOURS[colour] in rows[name]["text"]
        assert rows[name]["finish_reason"] == "stop" and rows[name]["input_token_len"] > 36
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_interrupted_run_goes_on_and_a_mended_file_is_tried_again(images, tmp_path):
    out = tmp_path / "rows.jsonl"
    kept = {"source": str(images / "a.png"), "prompt": "请描述图中内容", "text": "kept"}
    failed = {"source": str(images / "b.jpg"), "prompt": "请描述图中内容", "error": "then"}
    out.write_text("".join(json.dumps(row) + "\n" for row in (kept, failed)) + '{"source": "cut')
    done = pipeline(tmp_path, images / "a.png", images / "b.jpg", "--to", out)
    assert done.returncode == 0 and "1 of 2 are answered" in done.stderr
    rows = read(out)
    assert [row["text"] for row in rows][0] == "kept" and len(rows) == 2 and "蓝" in rows[1]["text"]
    again = pipeline(tmp_path, images / "a.png", images / "b.jpg", "--to", out)
    assert again.returncode == 0 and "2 of 2" in again.stderr and read(out) == rows


def test_urls_another_prompt_and_text(images, tmp_path):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=images)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.png"
        done = pipeline(tmp_path, url, url + "x", "--prompt", "What colour is it?", "--format", "text")
        server.shutdown()
    lines = [line for line in done.stdout.splitlines() if line.startswith("http")]
    assert done.returncode == 1 and len(lines) == 2
    assert lines[0].startswith(url + "\t") and "red" in lines[0]
    assert lines[1].startswith(url + "x\t[error: ")


@pytest.mark.parametrize(("source", "message"), [("nowhere", "neither a picture"), (".", "no pictures in")])
def test_sources_that_are_none_end_the_run(tmp_path, monkeypatch, capsys, source, message):
    monkeypatch.chdir(tmp_path)
    assert main([source, "--model", "demo", "--engine", "cpu"]) == 2 and message in capsys.readouterr().err


def test_another_file_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("a life's work\n")
    with pytest.raises(ConfigurationError, match="holds something else than text rows"):
        Rows(tmp_path / "thesis.txt", None, "?")


def test_a_folder_in_place_of_a_file_for_rows_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder; give a file in --to"):
        Rows(tmp_path, None, "?")


def test_text_rows_survive_line_breaks_and_tabs(tmp_path):
    row = {"source": "a\tb\\n.png", "text": "one\ntwo", "prompt": "what\tis\nit?"}
    (tmp_path / "rows.txt").write_text(to_text(row) + "\n")
    rows = Rows(tmp_path / "rows.txt", None, row["prompt"])
    assert rows.is_done(row["source"]) and not rows.is_done("a")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt"])
def test_another_prompt_in_the_same_file_leaves_earlier_answers_alone(tmp_path, name):
    file = tmp_path / name
    answer = {"source": "a.png", "prompt": "colour?", "text": "red"}
    failed = {"source": "b.png", "prompt": "colour?", "error": "broken"}
    everything = {"a.png", "b.png"}.__contains__
    with Rows(file, None, "colour?").begin(everything) as rows:
        rows.write(answer)
        rows.write(failed)
    before = file.read_text()
    another = Rows(file, None, "shape?")
    assert not another.is_done("a.png")
    with another.begin(everything) as rows:
        rows.write(answer | {"prompt": "shape?", "text": "circle"})
    assert file.read_text().startswith(before) and len(file.read_text().splitlines()) == 3
    again = Rows(file, None, "colour?")
    assert again.is_done("a.png") and not again.is_done("b.png")
    with again.begin({"b.png"}.__contains__) as rows:  # what failed is tried again, the rest stays
        rows.write(failed | {"error": "still"})
    assert len(file.read_text().splitlines()) == 3 and "broken" not in file.read_text()
    assert Rows(file, None, "shape?").is_done("a.png")


UNNAMEABLE = b"\xd5\xd5\xc6\xac.png"  # 照片.png as an archiver of Chinese Windows writes it
# A locale that is not UTF-8, with Python's own ways around it turned off.
ASCII_LOCALE = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}


@pytest.fixture
def odd_folder(tmp_path):
    """Names in UTF-8, in GBK, and in nothing; files that accompany images."""
    folder = tmp_path / "照片"
    (folder / "__MACOSX").mkdir(parents=True)
    for name in (UNNAMEABLE, b"\xff%41.png", "图.png".encode(), b"saved.jfif", b"._a.png", b"__MACOSX/b.png"):
        draw(Scene((Thing("red", "circle"),))).save(os.path.join(os.fsencode(folder), name), "PNG")
    return folder


@pytest.mark.parametrize("environment", [{}, ASCII_LOCALE], ids=["UTF-8", "ASCII"])
def test_names_that_are_not_utf8_can_be_read_back_and_resumed(odd_folder, tmp_path, environment):
    out = tmp_path / "rows.jsonl"
    done = pipeline(tmp_path, odd_folder, "--to", out, "--prompt", "它是什么颜色？", **environment)
    assert done.returncode == 0 and "4 answered, 0 failed" in done.stderr and "2 side file(s)" in done.stderr, done
    rows = read(out)
    assert {row["prompt"] for row in rows} == {"它是什么颜色？"} and all("红" in row["text"] for row in rows)
    paths = {bytes_of(row["source"]) for row in rows}
    names = (UNNAMEABLE, b"\xff%41.png", "图.png".encode(), b"saved.jfif")
    assert paths == {os.path.join(os.fsencode(odd_folder), name) for name in names}
    assert str(odd_folder / "图.png") in {row["source"] for row in rows}
    again = pipeline(tmp_path, odd_folder, "--to", out, "--prompt", "它是什么颜色？", **environment)
    assert again.returncode == 0 and "4 of 4 are answered" in again.stderr and read(out) == rows


def bytes_of(source: str) -> bytes:
    """A row's path, by what any language has for file: URLs."""
    is_escaped = source.startswith("file://")
    return urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(source).path) if is_escaped else source.encode()


def test_an_escaped_name_may_be_given_as_a_source(odd_folder):
    escaped = name_of(Path(os.fsdecode(os.path.join(os.fsencode(odd_folder), UNNAMEABLE))))
    assert escaped.endswith("/%D5%D5%C6%AC.png") and list(Sources([escaped]).names()) == [escaped]


def test_a_side_file_that_is_given_by_itself_is_tried(odd_folder):
    found = Sources([str(odd_folder / "._a.png")])
    assert len(list(found.names())) == 1 and found.passed_over == 0


def test_a_prompt_that_is_not_utf8_is_refused(odd_folder, tmp_path):
    done = pipeline(tmp_path, odd_folder, "--prompt", os.fsdecode(b"\xff?"))
    assert done.returncode == 2 and "--prompt" in done.stderr and "is not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_is_shown_in_every_locale(tmp_path):
    done = pipeline(tmp_path, "--help", **ASCII_LOCALE)
    assert done.returncode == 0 and "请描述图中内容" in done.stdout


SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": sorted(COLOURS)}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def test_answers_are_json_that_the_schema_allows(images, tmp_path):
    out, schema = tmp_path / "rows.jsonl", tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    done = pipeline(tmp_path, images / "a.png", images / "b.jpg", "--to", out, "--schema", schema)
    assert done.returncode == 0, done.stderr
    for row in read(out):
        answer = json.loads(row["text"])
        assert answer.keys() == {"colour", "count"} and answer["colour"] in COLOURS and answer["count"] in range(10)
        assert row["finish_reason"] == "stop" and row.keys() == FIELDS


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ('{"type": "array", "uniqueItems": true}', "its schema.uniqueItems: cannot be held to"),
        ('{"$ref": "https://example.org/schema.json"}', "nothing is fetched"),
        ('{"type": "string", "format": []}', "its schema.format: must be one of"),
        ('{"const": "\\ud800"}', "its schema: has half of a surrogate pair"),
        ('{"const": NaN}', "its schema: is no JSON"),
        (json.dumps({"description": "x" * 40000}), "its schema: has 40019 bytes"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_before_a_model_is_loaded(tmp_path, written, reason):
    schema = tmp_path / "schema.json"
    if written is not None:
        schema.write_text(written)
    with pytest.raises(ConfigurationError, match=re.escape(reason)) as told:
        read_form(schema)
    assert str(schema) in str(told.value)
