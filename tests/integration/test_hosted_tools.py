"""Python, a browser and an MCP server, called by the demo model on the real engine, through OpenAI's SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types.responses import Response, ResponseCodeInterpreterToolCall, ResponseFunctionWebSearch

from gptoss_bento.tools.browser.fake_search import FakeSearch
from gptoss_bento.tools.python import confinement
from tests.server import NO_TLS, ServedProcess, serve
from tests.waiting import HANG_S, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(confinement.problem() is not None, reason="this kernel cannot confine Python"),
]

PYTHON: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
SEARCH: Any = {"type": "web_search"}
KEY = "exa-k3y"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    folder: Path = tmp_path_factory.mktemp("hosted")
    with ExitStack() as stack:
        search = stack.enter_context(FakeSearch())
        variables = {
            "PYTHON_TOOL": "on",
            "SEARCH_BACKEND": "exa",
            "SEARCH_URL": f"{search.url}/exa",
            "EXA_API_KEY": KEY,
            "TOOLS_PRIVATE_ADDRESSES": "1",  # the fake is at one
            "OVERRIDE_GENERATION_CONFIG": '{"temperature": 0}',
        }
        service = stack.enter_context(serve(folder, {"PROFILE": "demo", **variables}))
        service.wait_until_ready()
        yield service


@pytest.fixture
def client(served: ServedProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=HANG_S, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, question: str, tool: Any, **others: Any) -> Response:
    model = client.models.list().data[0].id
    answer: Response = client.responses.create(
        model=model, input=question, tools=[tool], max_output_tokens=600, **others
    )
    return answer


def calls(response: Response) -> list[ResponseCodeInterpreterToolCall]:
    return [item for item in response.output if isinstance(item, ResponseCodeInterpreterToolCall)]


def test_python_computes_what_the_model_cannot(client: openai.OpenAI) -> None:
    response = ask(client, "What is 2**200 % 97?", PYTHON, include=["code_interpreter_call.outputs"])

    (call,) = calls(response)
    assert (call.status, call.code) == ("completed", "print(2**200 % 97)")
    assert call.outputs
    assert call.outputs[0].model_dump()["logs"] == "62"
    assert response.output_text == "The result is 62."
    assert response.status == "completed"


def test_python_in_a_stream_has_its_events_in_order(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    with client.responses.stream(model=model, input="What is 7**77 % 1000?", tools=[PYTHON]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()

    steps = [kind.rpartition("call.")[2] for kind in kinds if kind.startswith("response.code_interpreter_call.")]
    assert steps == ["in_progress", "interpreting", "completed"]
    assert kinds[-1] == "response.completed"
    assert "207" in final.output_text


def test_variables_stay_through_a_chain_of_responses(client: openai.OpenAI) -> None:
    first = ask(client, "Run this Python code: x = 5", PYTHON)
    second = ask(client, "Run this Python code: print(x)", PYTHON, previous_response_id=first.id)

    assert calls(first)[0].container_id == calls(second)[0].container_id
    assert "5" in second.output_text


def test_search_opens_the_page_and_cites_it(client: openai.OpenAI) -> None:
    response = ask(client, "When was the lighthouse of Norvik built?", SEARCH)

    actions = [item.action.type for item in response.output if isinstance(item, ResponseFunctionWebSearch)]
    assert actions == ["search", "open_page"]
    message: Any = response.output[-1]
    (part,) = message.content
    (citation,) = part.annotations
    assert citation.type == "url_citation"
    assert "Norvik" in citation.title
    assert part.text[citation.start_index : citation.end_index].startswith("【")


def test_search_in_a_stream_announces_its_citation(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    with client.responses.stream(model=model, input="How high is Mount Sorrel?", tools=[SEARCH]) as stream:
        kinds = [event.type for event in stream]

    assert kinds.count("response.web_search_call.completed") == 2
    assert kinds.count("response.output_text.annotation.added") == 1
    assert kinds[-1] == "response.completed"


def test_client_that_leaves_ends_the_code(served: ServedProcess, client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    body = {"model": model, "input": "Run this Python code: while True: pass", "tools": [PYTHON], "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/responses", json=body, verify=NO_TLS, timeout=HANG_S) as answer:
        for line in answer.iter_lines():
            if "code_interpreter_call.interpreting" in line:
                wait_for(lambda: codes_running(served))
                break
    wait_for(lambda: not codes_running(served))
    assert ask(client, "What is 17*23?", PYTHON).output_text


def codes_running(served: ServedProcess) -> int:
    return sum(map(runs_code, psutil.Process(served.process.pid).children(recursive=True)))


def runs_code(process: psutil.Process) -> bool:
    """Whether it is a container at work: the kernel would end it first, and between calls it is stopped."""
    try:
        first_to_end = Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
        return first_to_end and process.status() != psutil.STATUS_STOPPED
    except (OSError, psutil.NoSuchProcess):
        return False


def test_request_for_a_tool_that_is_off_names_the_variable(client: openai.OpenAI) -> None:
    server: Any = {"type": "mcp", "server_label": "docs", "server_url": "https://mcp.example.com"}
    with pytest.raises(openai.BadRequestError, match="MCP_REQUEST_SERVERS"):
        ask(client, "Hello", server)
