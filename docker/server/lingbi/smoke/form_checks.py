"""The checks of scripts/smoke that ask for an answer in a form."""

import json
from collections.abc import Sequence
from typing import Any

from lingbi.http.readiness import PROBE_QUESTION
from lingbi.images.messages import user_message as turn
from lingbi.images.scene_json import json_fault
from lingbi.images.scenes import COLOURS
from lingbi.smoke.checks import ONE, THREE, TWO, CheckFailed, Target, check, data_url, expect, is_demo

LIST_TOKENS = 160  # of three objects


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def list_of_objects(name: str, properties: Sequence[str]) -> dict[str, Any]:
    """The schema of an object whose only property is a list of objects, each with these texts."""
    item = closed({each: {"type": "string"} for each in properties})
    return closed({name: {"type": "array", "items": item}})


def response_format(schema: dict[str, Any], is_strict: bool = True) -> dict[str, Any]:
    """What a request asks for, so that its answer has the form of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": is_strict}}


@check("json")
def json_answer(target: Target) -> str:
    """An answer has the form of a schema, whatever the model says."""
    colours = list(COLOURS)
    form = response_format(closed({"colour": {"enum": colours}}))
    answer = _asked(target, turn(PROBE_QUESTION, data_url(ONE)), form)
    expect(answer.keys() == {"colour"} and answer["colour"] in colours, f"not in the schema's form: {answer}")
    return json.dumps(answer)


@check("json-objects", applies=is_demo)
def json_objects(target: Target) -> str:
    """The objects of a picture come as JSON after a schema, in English and Chinese."""
    english = list_of_objects("objects", ["colour", "shape", "position"])
    chinese = list_of_objects("物体", ["颜色", "形状", "位置"])
    asked = ((TWO, english, "List the objects as JSON."), (THREE, chinese, "请用JSON列出图中的物体"))
    for scene, schema, question in asked:
        answer = _asked(target, turn(question, data_url(scene)), response_format(schema), max_tokens=LIST_TOKENS)
        fault = json_fault(scene.things, json.dumps(answer))
        expect(fault is None, f"wrong answer: {fault}")
    return json.dumps(answer, ensure_ascii=False)


def _asked(target: Target, message: Any, form: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The answer to a message in a form. Raises CheckFailed unless it is a JSON object."""
    said = target.answer([message], response_format=form, **options)
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise CheckFailed(f"no JSON ({error}): {said!r}") from None
    expect(isinstance(answer, dict), f"no JSON object: {said!r}")
    return dict(answer)
