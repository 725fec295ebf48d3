"""What OpenAI's clients send, as JSON or as forms: the fields of that API, and with them those of a model's request."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile

from flaxgen import bounded_json
from flaxgen.app.messages import Name
from flaxgen.app.replies import Failure
from flaxgen.app.sizes import Size

FORM = "multipart/form-data"
PARTS, PART = 64, 2**16
"""Texts of a form, and bytes of each, at most."""
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
Word = Annotated[str, StringConstraints(max_length=512)]


class Body(BaseModel):
    """Fields that OpenAI's API knows; those of the last group are taken and change nothing."""

    model_config = ConfigDict(extra="allow")

    model: Name | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: Word | None = None
    response_format: Literal["url", "b64_json"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    output_format: Literal["png"] | None = None

    user: Word | None = None
    quality: Word | None = None
    style: Word | None = None
    background: Word | None = None
    moderation: Word | None = None
    output_compression: int | None = None
    input_fidelity: Word | None = None
    safety_identifier: Word | None = None

    def own_fields(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """All other fields: those of the model's request, with these JSON schemas."""
        return dict(self.model_extra or {})


class Generation(Body):
    """The body of a generation."""

    model_config = ConfigDict(extra="allow", strict=True)

    prompt: str


class Form(Body):
    """A form: every value is a text."""

    def own_fields(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """All other fields, read as the JSON that their schemas ask for; what cannot be read stays a text, which the
        check of the request then refuses by its name."""
        return {name: _value(text, properties.get(name, {})) for name, text in (self.model_extra or {}).items()}


class Edit(Form):
    """The form of an edit."""

    prompt: str


class Variation(Form):
    """The form of a variation."""


B = TypeVar("B", bound=Form)


def _value(text: Any, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") not in ("integer", "number", "boolean") or not isinstance(text, str):
        return text
    try:
        return bounded_json.loads(text)
    except ValueError:
        return text


def size_of(text: str | None) -> Size | None:
    """Width and height; None is the model's own.

    Raises:
        Failure: if it is no size.
    """
    if text in (None, "", "auto"):
        return None
    found = SIZE.fullmatch(text)
    if found is None:
        raise Failure(400, f"size={text[:32]}: expected WIDTHxHEIGHT, such as 256x256, or auto", "size")
    return int(found[1]), int(found[2])


async def read_form(request: Request, kind: type[B], names: tuple[str, ...]) -> tuple[B, dict[str, bytes]]:
    """A form of that kind and its files, one each of `names`, of which the first is needed.

    Raises:
        Failure, RequestValidationError: if it is another, lacks something or has more.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Failure(415, f"expected a form ({FORM})")
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    async with request.form(max_files=len(names) + 1, max_fields=PARTS, max_part_size=PART) as form:
        for name, value in form.multi_items():
            field = name.removesuffix("[]")
            if field in files or field in texts:
                raise Failure(400, f"{field[:64]} is there twice: expected one", field[:64])
            if isinstance(value, UploadFile):
                files[field] = await value.read()
            else:
                texts[field] = value
    if unknown := next((name for name in files if name not in names), None):
        raise Failure(400, f"{unknown[:64]}: expected no file", unknown[:64])
    if names[0] not in files:
        raise Failure(400, f"{names[0]}: expected a file", names[0])
    try:
        return kind.model_validate(texts), files
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error


def described(kind: type[Form], *files: str) -> dict[str, Any]:
    """A form with those files for OpenAPI; the first is needed."""
    schema = kind.model_json_schema()
    properties = {name: {"type": "string", "format": "binary"} for name in files} | schema["properties"]
    whole = {**schema, "properties": properties, "required": [files[0], *schema.get("required", ())]}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": whole}}}}
