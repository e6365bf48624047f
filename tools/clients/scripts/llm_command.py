"""The command `llm`, with the model in extra-openai-models.yaml, as its documentation says for other servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from checks import API_KEY, BASE_URL, MODEL, PERSON, QUESTION, TIMEOUT_S, WEATHER, check, is_text, run

FOLDER = Path.home() / "llm"
FOLDER.mkdir(exist_ok=True)
(FOLDER / "extra-openai-models.yaml").write_text(
    f"- model_id: served\n  model_name: {MODEL}\n  api_base: {BASE_URL}/v1\n  api_key_name: served\n"
    "  supports_tools: true\n  supports_schema: true\n  can_stream: true\n"
    f"- model_id: raw\n  model_name: {MODEL}\n  api_base: {BASE_URL}/v1\n  api_key_name: served\n  completion: true\n"
)
(FOLDER / "keys.json").write_text(json.dumps({"served": API_KEY}))
WEATHER_FUNCTION = '''
def get_weather(location: str) -> str:
    """Gets the current weather of a city."""
    return "21 degrees Celsius and sunny"
'''


def llm(*arguments: str, model: str = "served") -> str:
    command = [str(Path(sys.executable).with_name("llm")), "-m", model, *arguments]
    environment = {**os.environ, "LLM_USER_PATH": str(FOLDER)}
    ended = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@check
def text() -> None:
    is_text(llm(QUESTION, "-o", "temperature", "0", "--no-stream"), "Paris")


@check
def stream() -> None:
    is_text(llm(QUESTION, "-o", "temperature", "0"), "Paris")


@check
def system() -> None:
    is_text(llm(QUESTION, "-s", "Answer in French."), "Paris")


@check
def schema() -> None:
    assert json.loads(llm(PERSON, "--schema", "name, age int", "-o", "temperature", "0")) == {
        "name": "Alice",
        "age": 30,
    }


@check
def tool() -> None:
    is_text(llm(WEATHER, "--functions", WEATHER_FUNCTION, "-o", "temperature", "0"), "21")


@check
def conversation() -> None:
    llm("My name is Ada.")
    is_text(llm("-c", "What is my name?"), "Ada")


@check
def completion() -> None:
    is_text(llm("The capital of France is", "-o", "max_tokens", "5", "-o", "temperature", "0", model="raw"), "Paris")


run()
