from __future__ import annotations

import pytest

from gptoss_bento.config import vllm_names
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning.arguments import GPT_OSS_ARGUMENTS


@pytest.mark.parametrize("option", ["tool_call_parser", "reasoning_parser"])
def test_parsers_of_gpt_oss_are_among_vllms(option: str) -> None:
    assert GPT_OSS_ARGUMENTS[option] in vllm_names.parsers()[option]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TOOL_CALL_PARSER": "opnai"}, r"TOOL_CALL_PARSER: the value 'opnai' .*did you mean openai\?"),
        ({"REASONING_PARSER": "openai_gpt_oss"}, r"REASONING_PARSER: .*did you mean openai_gptoss\?"),
        ({"VLLM_EXTRA_ARGS": "--reasoning-parser nope"}, "VLLM_EXTRA_ARGS: .* a reasoning parser of vLLM: "),
        (
            {"STRUCTURED_OUTPUTS_CONFIG": '{"reasoning_parser": "nope"}'},
            "STRUCTURED_OUTPUTS_CONFIG: .* a reasoning parser",
        ),
    ],
)
def test_parser_that_vllm_does_not_have_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"TOOL_CALL_PARSER": "mine", "TOOL_PARSER_PLUGIN": "/plugins/mine.py"},
        {"REASONING_PARSER": "mine", "REASONING_PARSER_PLUGIN": "/plugins/mine.py"},
        {"STRUCTURED_OUTPUTS_CONFIG": '{"reasoning_parser": "mine", "reasoning_parser_plugin": "/mine.py"}'},
        {"STRUCTURED_OUTPUTS_CONFIG": '{"backend": "xgrammar"}'},
    ],
)
def test_parser_of_a_plugin_is_left_to_vllm(environ: dict[str, str]) -> None:
    assert load_settings(environ).engine


@pytest.mark.parametrize("name", ["DISTRIBUTED_EXECUTOR_BACKEND", "DATA_PARALLEL_BACKEND"])
def test_ray_without_the_package_is_refused_with_what_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_names, "has_ray", lambda: False)

    with pytest.raises(ConfigurationError, match=rf"{name}: the value 'ray' .*pip install 'ray\[cgraph\]'"):
        load_settings({name: "ray"})


@pytest.mark.parametrize("name", ["DISTRIBUTED_EXECUTOR_BACKEND", "DATA_PARALLEL_BACKEND"])
def test_ray_with_the_package_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_names, "has_ray", lambda: True)

    assert load_settings({name: "ray"}).engine == {name.lower(): "ray"}


def test_ray_is_looked_for_as_a_package() -> None:
    assert vllm_names.has_ray(lambda name: object() if name == "ray" else None)
    assert not vllm_names.has_ray(lambda _: None)


# Names of CORS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ALLOWED_ORIGINS", '["https://chat.example"]'),
        ("ALLOWED_METHODS", '["GET"]'),
        ("ALLOWED_HEADERS", '["x-mine"]'),
    ],
)
def test_cors_names_of_vllm_are_answered_with_ours(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: .* nothing here; CORS_ORIGINS"):
        load_settings({name: text})


@pytest.mark.parametrize(
    "environ",
    [
        {"ALLOWED_ORIGINS": "[]"},
        {"ALLOWED_METHODS": '["*"]'},
        {"ALLOWED_HEADERS": '["*"]'},
        {"ALLOW_CREDENTIALS": "false"},
    ],
)
def test_cors_defaults_of_vllm_are_let_through(environ: dict[str, str]) -> None:
    assert load_settings(environ).warnings == ()
