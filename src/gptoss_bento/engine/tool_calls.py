"""What GPT-OSS sees of the tools, and when it may call one. Wrappers of vLLM's functions; patches.py applies them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gptoss_bento.http.json_schema.typescript import typescript


def typed(create_definition: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes tools' definitions whose parameters are written as types here.

    openai-harmony writes a list of types as it is, and this list has one: the whole type.
    """

    def create(tool: Any) -> Any:
        definition = create_definition(tool)
        if definition.parameters is None:
            return definition
        return definition.model_copy(update={"parameters": {"type": [typescript(definition.parameters)]}})

    return create
