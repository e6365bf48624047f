"""The merged OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import PlainTextResponse

from gptoss_bento.server.openapi import Description, described
from tests.fakes import asgi_client

BENTOML: dict[str, Any] = {
    "openapi": "3.0.2",
    "info": {"title": "gptoss-bento"},
    "tags": [{"name": "Service APIs"}],
    "paths": {
        "/metrics": {"get": {}},
        "/readyz": {"get": {"responses": {"200": {"description": "BentoML's"}}}},
        "/generate": {"post": {"responses": {200: {"description": "Done"}, 404: {"description": "BentoML's"}}}},
    },
    "components": {"schemas": {"GenerateInput": {"type": "object"}}},
}


class Part(BaseModel):
    text: str


class Chat(BaseModel):
    parts: list[Part]


class Scaling(BaseModel):
    size: int


def engine_app() -> FastAPI:
    """As vLLM's: routes that clients reach, and others."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(body: Chat) -> None: ...

    @app.get("/v1/responses/{response_id}")
    async def response(response_id: str) -> None: ...

    @app.delete("/v1/models")
    async def forget() -> None: ...

    @app.post("/scale_elastic_ep")
    async def scale(body: Scaling) -> None: ...

    return app


async def document(app: Any = None, *, locked: bool = False) -> dict[str, Any]:
    described = Description(PlainTextResponse("beyond"), lambda: BENTOML, lambda: app, locked=locked)
    async with asgi_client(described) as client:
        assert (await client.get("/other")).text == "beyond"
        assert (await client.post("/docs.json")).text == "beyond"
        return dict((await client.get("/docs.json")).json())


async def test_job_api_is_beside_bentomls_own() -> None:
    found = await document()

    assert found["openapi"] == "3.1.0"
    assert found["info"] == BENTOML["info"]
    assert {"/metrics", "/generate", "/run", "/status/{id}", "/ping"} <= found["paths"].keys()
    assert {"GenerateInput", "JobRequest"} <= found["components"]["schemas"].keys()
    assert [tag["name"] for tag in found["tags"]] == ["Service APIs", "Job API"]
    assert "security" not in found


async def test_description_corrects_what_bentoml_cannot_know() -> None:
    paths = (await document())["paths"]

    assert paths["/generate"]["post"]["responses"].keys() == {"200", "400", "409", "413", "429", "500", "503", "504"}
    assert paths["/readyz"]["get"]["responses"].keys() == {"200", "503"}


async def test_description_has_only_the_engines_reachable_routes() -> None:
    found = await document(engine_app())

    assert {"/v1/chat/completions", "/v1/responses/{response_id}"} <= found["paths"].keys()
    assert not {"/scale_elastic_ep", "/v1/models"} & found["paths"].keys()
    assert "delete" in found["paths"]["/v1/responses/{response_id}"]
    assert "get" in found["paths"]["/v1/responses/{response_id}/input_items"]
    assert {"get", "post"} <= found["paths"]["/v1/conversations/{conversation_id}/items"].keys()
    assert {"get", "post", "servers"} == found["paths"]["/v1/batches"].keys()
    assert "multipart/form-data" in found["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    assert {"Chat", "Part"} <= found["components"]["schemas"].keys()
    assert not {"Scaling", "HTTPValidationError"} & found["components"]["schemas"].keys()
    assert "422" not in found["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert found["tags"][-1]["name"] == "OpenAI API"


async def test_engine_that_cannot_describe_itself_hides_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def openapi(self) -> dict[str, Any]:
            raise TypeError

    found = await document(Broken())

    assert "/run" in found["paths"]
    assert "vLLM does not describe" in caplog.text


async def test_key_is_part_of_the_description() -> None:
    found = await document(locked=True)

    assert found["security"] == [{"key": []}]
    assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert found["paths"]["/livez"]["get"]["security"] == []


def test_bentomls_document_stays_as_it_is() -> None:
    before = repr(BENTOML)
    described(BENTOML, {}, locked=True)

    assert repr(BENTOML) == before
