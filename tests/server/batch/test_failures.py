"""The errors of a batch's lines by kind, as both databases count them."""

from lingbi.batch import claims, failures
from tests.server.batch.test_claims import claim, finish, make, sign_on

TOO_LONG = {"error": {"message": "x" * 400, "code": "context_length_exceeded"}}
BAD_PICTURE = {"error": {"message": "broken", "code": "invalid_image"}}


def kinds(database, batch: str, has_examples: bool = True) -> list:
    with database.read() as connection:
        return failures.kinds(connection, batch, has_examples)


def test_errors_are_counted_by_kind_with_an_example_of_each(database):
    batch, other = make(database, count=7), make(database, owner="two", count=1)
    sign_on(database, "w")
    lines = {one.line: one for one in claim(database) if one.batch_id == batch}
    told = {
        1: claims.answered(lines[1], "r", 400, BAD_PICTURE),
        2: claims.answered(lines[2], "r", 400, TOO_LONG),
        3: claims.unasked("id-3", "model_not_found", "the model 'x' is not served"),
        4: claims.answered(lines[4], "r", 400, TOO_LONG),
        5: claims.answered(lines[5], "r", 502, "<html>no JSON of ours</html>"),
    }
    with database.begin() as connection:
        for line, result in told.items():
            assert claims.finish(connection, "w", lines[line], result)
    assert finish(database, "w", lines[6])
    found = kinds(database, batch)
    assert [(one["status_code"], one["code"], one["count"], one["custom_id"]) for one in found] == [
        (400, "context_length_exceeded", 2, "id-2"),
        (400, "invalid_image", 1, "id-1"),
        (None, "model_not_found", 1, "id-3"),
        (502, None, 1, "id-5"),
    ]
    assert [one["message"] for one in found] == ["x" * 300, "broken", "the model 'x' is not served", ""]
    plain = kinds(database, batch, has_examples=False)
    assert [one.keys() for one in plain] == [{"status_code", "code", "count"}] * 4
    assert kinds(database, other) == []
