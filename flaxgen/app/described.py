"""OpenAPI: the routes, and of each model and verb a route whose body is the schema of its request."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from flaxgen.app import asking
from flaxgen.app.catalogue import Entry
from flaxgen.app.limits import Limits

TEMPLATE = "/api/models/{name}/{verb}"
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(app: FastAPI, entries: Mapping[str, Entry], limits: Limits) -> None:
    """Makes `app.openapi()` say what each model can be asked, and how errors look."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        found = plain()
        found["components"]["schemas"] = {
            name: kind for name, kind in found["components"]["schemas"].items() if "ValidationError" not in name
        } | {"Error": ERROR}
        template = found["paths"].pop(TEMPLATE)["post"]
        for entry in entries.values():
            for verb, kind in asking.verbs_of(entry).items():
                found["paths"][f"/api/models/{entry.name}/{verb}"] = {
                    "post": _of_verb(template, entry.name, verb, asking.schema(kind, limits))
                }
        for path in found["paths"].values():
            for operation in path.values():
                _with_errors(operation)
        return found

    app.openapi = openapi  # pyright: ignore[reportAttributeAccessIssue]: FastAPI's own way


def _of_verb(template: Mapping[str, Any], model: str, verb: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    rest = [one for one in template["parameters"] if one["in"] != "path"]
    return {
        **template,
        "summary": f"{verb} with {model}",
        "operationId": f"{verb}_{model}",
        "parameters": rest,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
    }


def _with_errors(operation: dict[str, Any]) -> None:
    """Errors as they are, instead of those that FastAPI would send by itself."""
    replies = operation["responses"] = dict(operation["responses"])
    replies.pop("422", None)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    replies["4XX"] = {"description": "What is wrong, in one line", "content": content}
