"""The fields by which a request binds its answer to a form, and the form that they ask for.

`response_format` is the OpenAI API's; `guided_json`, `guided_regex` and `guided_choice` are vLLM's and lmdeploy's.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.forms import ANY_OBJECT, Form
from lingbi.http.protocol.messages import Name, Taken

REGEX_CHARACTERS = 4096
CHOICE_CHARACTERS, CHOICES_LIMIT = 1024, 1024


def _as_schema(value: Any) -> Any:
    """A schema that is written as JSON in a text, as vLLM takes it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON Schema, or one as text") from None


class SchemaFormat(Taken):
    """A JSON Schema with its name; strict: refuse what the answer cannot be held to, instead of passing it over."""

    model_config = ConfigDict(populate_by_name=True)

    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = False


class ResponseFormat(Taken):
    """The form of the answer: text, any JSON object, or JSON that a schema allows."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = Field(None, description="needed where the type is json_schema")

    def form(self, place: str) -> Form | None:
        """The form, of which `place` is the field's. Raises BadRequest where there is no schema."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Form("schema", ANY_OBJECT, place)
        if not self.json_schema:
            raise BadRequest(f"{place}.json_schema: is needed, because the type is json_schema", f"{place}.json_schema")
        return Form("schema", self.json_schema.schema_, f"{place}.json_schema.schema", bool(self.json_schema.strict))


class TextFormat(Taken):
    """The form of an answer of /v1/responses, which has the schema's fields beside its type."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="needed where the type is json_schema")
    strict: bool | None = False

    def form(self, place: str) -> Form | None:
        """The form, of which `place` is the field's. Raises BadRequest where there is no schema."""
        if self.type == "json_schema":
            if self.schema_ is None:
                raise BadRequest(f"{place}.schema: is needed, because the type is json_schema", f"{place}.schema")
            return Form("schema", self.schema_, f"{place}.schema", bool(self.strict))
        return None if self.type == "text" else Form("schema", ANY_OBJECT, place)


Schema = Annotated[dict[str, Any], BeforeValidator(_as_schema)]
Regex = Annotated[str, StringConstraints(min_length=1, max_length=REGEX_CHARACTERS)]
Choice = Annotated[str, StringConstraints(min_length=1, max_length=CHOICE_CHARACTERS)]
Choices = Annotated[list[Choice], Field(min_length=1, max_length=CHOICES_LIMIT)]


def only_form(asked: dict[str, Form | None]) -> Form | None:
    """The one form among those that the fields of these names ask for. Raises BadRequest where there are several."""
    forms = {name: form for name, form in asked.items() if form}
    if len(forms) > 1:
        first, second = list(forms)[:2]
        raise BadRequest(
            f"{second}: an answer has one form, and {first} asks for one already; send one of them", second
        )
    return next(iter(forms.values()), None)
