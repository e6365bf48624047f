"""The clients, with the versions that docs/clients.md speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
NODE = "node@24.21.0"
"""npm's package of Node.js: what a machine has may be older than some clients need (22)."""
_ZOD = "zod@4.6.7"


@dataclass(frozen=True)
class Client:
    """A client, and how its documented features are tried.

    Args:
        name: for the command line.
        script: a file of `scripts/`: Python, or `.mjs` for Node.js.
        packages: what is installed, each with its version; the first is the client itself.
        variables: what the script gets beside BASE_URL, API_KEY and MODEL.
    """

    name: str
    script: str
    packages: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_node(self) -> bool:
        return self.script.endswith(".mjs")

    @property
    def version(self) -> str:
        """The package and its version, as `openai 3.57.0`."""
        name, _, version = self.packages[0].rpartition("@" if self.on_node else "==")
        return f"{name.partition('[')[0]} {version}"


_OPENAI = ("openai==3.57.0",)
_OPENAI_2 = ("openai==2.54.0",)
_AI = ("ai@6.0.325", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92", _ZOD)
_LANGCHAIN = ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10")
_CODEX = ("@openai/codex@0.171.0",)
_CODEX_SET = {"CODEX_SETTINGS": 'features.multi_agent=false web_search="disabled"'}
"""Without these it sends tools of the types `namespace` and `web_search`, too."""

CLIENTS = (
    Client("openai-chat", "openai_chat.py", _OPENAI),
    Client("openai-responses", "openai_responses.py", _OPENAI),
    Client("openai-2-chat", "openai_chat.py", _OPENAI_2),
    Client("openai-2-responses", "openai_responses.py", _OPENAI_2),
    Client("openai-node", "openai_node.mjs", ("openai@7.59.0", _ZOD)),
    Client("agents-python", "openai_agents.py", ("openai-agents==0.24.0",)),
    Client("agents-js", "agents.mjs", ("@openai/agents@0.20.0", _ZOD)),
    Client("agents-js-0.0", "agents.mjs", ("@openai/agents@0.0.15", "zod@3.25.67")),
    Client("ai-sdk-openai", "ai_sdk.mjs", _AI, {"PROVIDER": "openai"}),
    Client("ai-sdk-compatible", "ai_sdk.mjs", _AI, {"PROVIDER": "openai-compatible"}),
    Client("codex", "codex.mjs", _CODEX),
    Client("codex-set", "codex.mjs", _CODEX, _CODEX_SET),
    Client("codex-short", "codex.mjs", _CODEX, {**_CODEX_SET, "CODEX_SHORT": "1"}),
    Client("claude-code", "claude_code.mjs", ("@anthropic-ai/claude-code@2.1.332",)),
    Client("anthropic-python", "anthropic_messages.py", ("anthropic==2.14.0",)),
    Client("anthropic-node", "anthropic.mjs", ("@anthropic-ai/sdk@1.14.0",)),
    Client("langchain-openai", "langchain_openai_models.py", _LANGCHAIN),
    Client("langchain-anthropic", "langchain_anthropic_models.py", _LANGCHAIN[::-1]),
    Client("litellm", "litellm_completion.py", ("litellm==1.110.2",)),
    Client("instructor", "instructor_models.py", ("instructor==1.17.0", "anthropic==2.14.0")),
    Client("pydantic-ai", "pydantic_ai_agents.py", ("pydantic-ai-slim[openai,anthropic]==2.68.0",)),
    Client("llm", "llm_command.py", ("llm==0.36",)),
    Client("runpod-python", "runpod_jobs.py", ("runpod==1.12.0",)),
    Client("runpod-js", "runpod.mjs", ("runpod-sdk@1.1.2",)),
)


def named(names: list[str]) -> tuple[Client, ...]:
    """These clients, all without a name.

    Raises:
        ValueError: there is none of that name.
    """
    known = {client.name: client for client in CLIENTS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no client {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) or CLIENTS
