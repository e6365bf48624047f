"""The real tools in vLLM's loop: confined Python, a browser over a fake search, MCP servers; the model is a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.tools.browser import fake_search
from gptoss_bento.tools.interfaces import HostedTools
from gptoss_bento.tools.python import confinement
from tests import fake_mcp_servers
from tests.contract.test_hosted import ANSWERS, CODE, FUNCTION, RUNS, SEARCH, Service, patched
from tests.harmony_renderer import renderer
from tests.vocabulary import vocabulary
from tests.waiting import HANG_S, until

__all__ = ["patched", "renderer", "vocabulary"]  # fixtures

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("patched")]

OUTPUT = "code_interpreter_call"


def runs(code: str) -> str:
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


def calls(recipient: str, **arguments: Any) -> str:
    return f"<|channel|>commentary to={recipient} json<|message|>{json.dumps(arguments)}<|call|>"


@asynccontextmanager
async def python(seconds: float = HANG_S) -> AsyncIterator[Any]:
    from gptoss_bento.tools.python.containers import Containers, Limits

    if problem := confinement.problem():
        pytest.skip(f"this machine cannot confine: {problem}")
    containers = Containers(Limits(timeout_s=seconds))
    yield containers
    await containers.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Any]:
    with fake_mcp_servers.fake_servers() as running:
        yield running


def mcp_tools(*, timeout_s: float = HANG_S) -> HostedTools:
    from gptoss_bento.engine.hosted.mcp_access import McpServersAccess
    from gptoss_bento.tools.mcp.server import Limits
    from gptoss_bento.tools.mcp.servers import McpServers

    access = McpServersAccess(McpServers((), Limits(), allow_private=True), may_bring=True, allow_http=True)
    return HostedTools(mcp=access, call_timeout_s=timeout_s)


def weather(servers: Any, path: str = "/events/mcp", approval: str = "never") -> dict[str, Any]:
    named = {"type": "mcp", "server_label": "sums", "server_url": servers.url(path)}
    return {**named, "require_approval": approval}


async def test_code_runs_and_keeps_its_variables_through_a_chain(renderer: Any) -> None:
    async with python() as containers:
        tools = HostedTools(python=containers)
        first = await Service(renderer, tools, runs("x = 2**200 % 97\nx"), ANSWERS).whole(CODE)
        service = Service(renderer, tools, runs("x + 1"), runs("1 / 0"), ANSWERS)
        second = await service.whole(CODE, input=[first["output"][0], {"role": "user", "content": "And one more?"}])

    (one,) = [item["outputs"][0]["logs"] for item in first["output"] if item["type"] == OUTPUT]
    two, three = (item["outputs"][0]["logs"] for item in second["output"] if item["type"] == OUTPUT)
    assert int(one) == 2**200 % 97
    assert int(two) == int(one) + 1
    assert "ZeroDivisionError" in three
    assert "ZeroDivisionError" in service.engine.prompts[2]


async def test_search_is_cited_with_the_address_of_its_result(renderer: Any) -> None:
    from gptoss_bento.tools.browser.backends import BACKENDS
    from gptoss_bento.tools.browser.limits import Limits
    from gptoss_bento.tools.browser.search import Searcher
    from gptoss_bento.tools.browser.session import Browser

    page = fake_search.corpus()[0]
    with fake_search.FakeSearch() as fake:
        searcher = Searcher(BACKENDS["exa"], key="k", url=f"{fake.url}/exa", limits=Limits())
        browser = Browser(searcher, limits=Limits(), allow_private=True)
        script = (
            f"<|channel|>analysis to=browser.search code<|message|>{json.dumps({'query': page.title})}<|call|>",
            '<|channel|>analysis to=browser.open code<|message|>{"id": 0, "cursor": 0}<|call|>',
            "<|channel|>final<|message|>So it is【1†L0-L1】.<|return|>",
        )
        service = Service(renderer, HostedTools(browser=browser), *script)
        events = await service.events(SEARCH)
        await browser.close()

    made = events[-1]["response"]["output"]
    address = f"{fake.url}{page.path}"
    assert [item["action"]["type"] for item in made[:2]] == ["search", "open_page"]
    assert {"type": "url", "url": address} in made[0]["action"]["sources"]
    assert made[1]["action"]["url"] == address
    assert [each["url"] for each in made[2]["content"][0]["annotations"]] == [address]
    assert page.sentences[0].split()[0] in service.engine.prompts[2]


@pytest.mark.parametrize("path", ["/events/mcp", "/json/mcp", "/sse"])
async def test_mcp_server_is_listed_and_called_beside_functions(renderer: Any, servers: Any, path: str) -> None:
    service = Service(renderer, mcp_tools(), calls("sums.add", a=2, b=3), ANSWERS)

    events = await service.events(FUNCTION, weather(servers, path))

    made = events[-1]["response"]["output"]
    assert [item["type"] for item in made] == ["mcp_list_tools", "mcp_call", "message"]
    assert "add" in [tool["name"] for tool in made[0]["tools"]]
    assert made[1]["output"] == "5"
    assert "namespace sums {" in service.engine.prompts[0]


@pytest.mark.parametrize(
    ("tool", "arguments", "ends"),
    [
        ("fail", {}, "failed"),
        ("wrong_schema", {}, "failed"),
        ("large", {}, "failed"),
        ("inject", {}, "completed"),
        ("missing", {}, "failed"),
    ],
)
async def test_result_of_a_bad_server_is_an_item_and_text(
    renderer: Any, servers: Any, tool: str, arguments: Any, ends: str
) -> None:
    service = Service(renderer, mcp_tools(), calls(f"sums.{tool}", **arguments), ANSWERS)

    events = await service.events(weather(servers))

    made = events[-1]["response"]
    assert made["status"] == "completed"
    assert made["output"][1]["status"] == ends
    assert ("error" in made["output"][1] and made["output"][1]["error"] is not None) is (ends == "failed")
    for event in events:
        if "response" not in event:
            TypeAdapter(ResponseStreamEvent).validate_python(event)


async def test_slow_mcp_server_is_stopped_at_the_bound(renderer: Any, servers: Any) -> None:
    service = Service(renderer, mcp_tools(timeout_s=3), calls("sums.slow"), ANSWERS)

    made = await service.whole(weather(servers))

    assert made["output"][1]["status"] == "failed"
    assert "stopped after 3 s" in service.engine.prompts[1]


async def test_mcp_server_that_is_away_is_an_item_with_its_error(renderer: Any, servers: Any) -> None:
    service = Service(renderer, mcp_tools(), ANSWERS)
    away = {**weather(servers), "server_url": "http://127.0.0.1:9/mcp"}

    made = await service.whole(away)

    assert made["output"][0]["error"]
    assert made["output"][-1]["type"] == "message"


async def test_approval_is_asked_for_and_its_call_is_made(renderer: Any, servers: Any) -> None:
    tools, asked = mcp_tools(), weather(servers, approval="always")
    question = {"role": "user", "content": "2 + 3?"}
    first = await Service(renderer, tools, calls("sums.add", a=2, b=3)).whole(asked, input=[question])
    request = first["output"][-1]
    assert request["type"] == "mcp_approval_request"

    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    items = [question, *first["output"], answer]
    second = await Service(renderer, tools, ANSWERS).whole(asked, input=items)

    assert second["output"][1]["output"] == "5"
    assert second["output"][1]["approval_request_id"] == request["id"]
    wrong = await Service(renderer, tools).whole(asked, input=[question, {**answer, "approval_request_id": "mcpr_0"}])
    assert wrong["error"]["param"] == "input"
    assert wrong["error"]["message"].startswith("input: approval_request_id ")


async def test_cancelled_response_ends_its_container_and_its_connection(renderer: Any, servers: Any) -> None:
    async with python() as containers:
        tools = HostedTools(python=containers, mcp=mcp_tools().mcp)
        others = children()
        service = Service(renderer, tools, runs("while True: pass"))
        task = asyncio.create_task(service.events(CODE))
        await until(lambda: children() - others)
        await cancelled(task)
        await until(lambda: not children() - others)

        before = servers.seen().ended
        task = asyncio.create_task(Service(renderer, tools, calls("sums.slow")).events(weather(servers)))
        await until(lambda: servers.seen().running)
        await cancelled(task)
        await until(lambda: servers.seen().ended > before)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    async with asyncio.timeout(HANG_S):
        await asyncio.wait((task,))


def children() -> set[psutil.Process]:
    """The children of this process that have not ended. A container hides its command line."""
    return {each for each in psutil.Process().children() if is_running(each)}


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_hundred_responses_together_leave_nothing(renderer: Any, servers: Any) -> None:
    others, open_files = children(), psutil.Process().num_fds()
    async with python() as containers:
        tools = HostedTools(python=containers, mcp=mcp_tools().mcp)
        services = [Service(renderer, tools, RUNS, calls("sums.add", a=1, b=2), ANSWERS) for _ in range(100)]
        made = await asyncio.gather(*(service.whole(CODE, weather(servers)) for service in services))

        assert [[item["type"] for item in each["output"]][1:3] for each in made] == [[OUTPUT, "mcp_call"]] * 100
        assert {each["output"][2]["output"] for each in made} == {"3"}
    await until(lambda: not children() - others)
    await until(lambda: psutil.Process().num_fds() <= open_files + 2)
