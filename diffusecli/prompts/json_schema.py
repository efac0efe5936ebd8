"""JSON Schemas of prompt files and configs, from their models, for editors and other tools.

Knows pydantic's schemas; reads no files.
"""

from __future__ import annotations

from typing import Any, Literal

from diffusecli.prompts.config import Config
from diffusecli.prompts.config_bases import BASE
from diffusecli.prompts.prompt import Prompt


def json_schema(kind: Literal["prompt", "config"]) -> dict[str, Any]:
    """The JSON Schema (draft 7) of prompt files or configs, for editors."""
    schema = _draft_7((Prompt if kind == "prompt" else Config).model_json_schema(mode="validation"))
    properties = {"$schema": {"type": "string", "description": "Where this schema is, for editors."}, **schema.pop("properties")}
    properties.pop("alias", None)
    if kind == "config":
        properties[BASE] = {"type": "string", "description": "Another config. Its settings apply where this file has none."}
        required = schema.pop("required")
        schema["anyOf"] = [{"required": required}, {"required": [BASE]}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "title": f"diffuse {kind}", "properties": properties}


def _draft_7(node: Any) -> Any:
    """Pydantic writes draft 2020-12; what it uses of it differs in where definitions stand."""
    if isinstance(node, dict):
        return {"definitions" if key == "$defs" else key: _draft_7(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_draft_7(value) for value in node]
    return node.replace("#/$defs/", "#/definitions/") if isinstance(node, str) else node
