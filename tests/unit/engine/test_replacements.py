"""What is replaced in vLLM's application and client, on fakes. The table itself: tests/unit/test_patching.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from gptoss_bento.engine import replacements
from gptoss_bento.engine.engine_gauges import EngineClock
from gptoss_bento.engine.usage import Meter


def app_with(**state: Any) -> Any:
    return SimpleNamespace(state=SimpleNamespace(**state))


def test_model_path_is_the_first_served_name() -> None:
    models = [SimpleNamespace(name=name, model_path="/secret") for name in ("first", "second")]
    replacements.hide_model_path(app_with(openai_serving_models=SimpleNamespace(base_model_paths=models)))

    assert [model.model_path for model in models] == ["first", "first"]


def test_other_formats_keep_vllms_search_for_stop_strings() -> None:
    processor = SimpleNamespace(add_request=lambda *_: None)
    kept = processor.add_request
    client: Any = SimpleNamespace(output_processor=processor)
    serving = SimpleNamespace(_create_chat_logprobs=kept)
    state = SimpleNamespace(online_renderer=SimpleNamespace(use_harmony=False), openai_serving_chat=serving)
    replacements.follow_harmony(state, client)

    assert (processor.add_request, vars(serving)) == (kept, {"_create_chat_logprobs": kept})


def test_parameter_is_named_by_handlers_of_a_stack_that_was_built() -> None:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise KeyError

    @app.exception_handler(KeyError)
    async def handle(*_: Any) -> JSONResponse:
        error = {"message": "max_tokens must be at least 1, got 0.", "param": None, "code": 400}
        return JSONResponse({"error": error}, 400, {"x-kept": "yes"})

    app.middleware_stack = app.build_middleware_stack()
    replacements.name_parameters(app)
    response = TestClient(app).get("/")

    assert (response.json()["error"]["param"], response.headers["x-kept"]) == ("max_tokens", "yes")


@dataclass
class Message:
    timestamp: float


async def test_output_of_one_of_several_workers_sets_the_clock() -> None:
    queue: asyncio.Queue[Message] = asyncio.Queue()
    core: Any = SimpleNamespace(outputs_queue=queue, get_output_async=queue.get)
    client: Any = SimpleNamespace(engine_core=core, get_num_unfinished_requests=lambda: 1)
    clock = EngineClock()
    replacements.share_cores(client, clock)
    queue.put_nowait(Message(7.0))

    assert await core.get_output_async() == Message(7.0)
    assert clock.seconds == 7.0


class Processor:
    """As much of vLLM's output processor as is changed."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}

    def add_request(self, request: Any, prompt: Any, parent: Any, index: int, queue: Any) -> None:
        del prompt, parent, index, queue
        detokenizer = SimpleNamespace(num_output_tokens=lambda: 2)
        self.request_states[request.request_id] = SimpleNamespace(prompt_len=10, detokenizer=detokenizer)


def test_meter_counts_the_prompt_of_several_answers_once() -> None:
    client: Any = SimpleNamespace(output_processor=Processor())
    replacements.meter_generations(client)
    with Meter() as meter:
        for index in range(3):
            request = SimpleNamespace(request_id=f"answer-{index}")
            client.output_processor.add_request(request, None, None, index, None)

    assert meter.tokens == 10 + 3 * 2
