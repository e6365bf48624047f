"""With vLLM's module replaced by one of the same name; that it has the function is looked at in vLLM itself."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.vllm_plugin import graph_memory
from tests.fakes import Calls

logger = logging.getLogger("vllm.gptoss_bento.engine.vllm_plugin")


@pytest.fixture
def runner_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of vLLM's module of the model runner, with a profile that measures 100 bytes."""
    package: Any = ModuleType("vllm.v1.worker.gpu")
    package.model_runner = ModuleType("vllm.v1.worker.gpu.model_runner")
    package.model_runner._profile_cudagraph_memory = Calls(100)
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.gpu", package)
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.gpu.model_runner", package.model_runner)
    return package.model_runner


def runner(key: str = "a", world_size: int = 1, data_parallel_size: int = 1) -> Any:
    parallel = SimpleNamespace(world_size=world_size, data_parallel_size=data_parallel_size)
    return SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=parallel, key=key))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "graph-memory.jsonl"
    monkeypatch.setattr(graph_memory, "_file", lambda: path)
    monkeypatch.setattr(graph_memory, "_key", lambda config: config.key)
    return path


@pytest.mark.usefixtures("file")
def test_graph_memory_is_measured_at_the_first_start_only(runner_module: Any) -> None:
    measuring = runner_module._profile_cudagraph_memory
    graph_memory.install(logger)

    assert [runner_module._profile_cudagraph_memory(runner()) for _ in range(3)] == [100, 100, 100]
    assert len(measuring.made) == 1


@pytest.mark.usefixtures("file")
def test_graph_memory_of_another_configuration_is_measured(runner_module: Any) -> None:
    measuring = runner_module._profile_cudagraph_memory
    graph_memory.install(logger)

    for key in ("a", "b", "a"):
        runner_module._profile_cudagraph_memory(runner(key))

    assert len(measuring.made) == 2


@pytest.mark.parametrize("several", [{"world_size": 2}, {"data_parallel_size": 2}])
def test_graph_memory_of_several_ranks_is_always_measured(
    runner_module: Any, file: Path, several: dict[str, Any]
) -> None:
    measuring = runner_module._profile_cudagraph_memory
    graph_memory.install(logger)

    for _ in range(2):
        runner_module._profile_cudagraph_memory(runner(**several))

    assert len(measuring.made) == 2
    assert not file.exists()


@pytest.mark.usefixtures("file")
def test_graph_memory_of_none_is_not_kept(runner_module: Any) -> None:
    measuring = runner_module._profile_cudagraph_memory = Calls(0)
    graph_memory.install(logger)

    assert [runner_module._profile_cudagraph_memory(runner()) for _ in range(2)] == [0, 0]
    assert len(measuring.made) == 2


@pytest.mark.parametrize(
    "lines", [b"", b"nonsense\n", b"[]\n", b'{"key": "a"}\n', b'{"key": "a", "bytes": -1}\n', b'{"key": "a", "bytes"']
)
def test_graph_memory_that_is_not_readable_is_measured_again(runner_module: Any, file: Path, lines: bytes) -> None:
    file.write_bytes(lines)
    graph_memory.install(logger)

    assert runner_module._profile_cudagraph_memory(runner()) == 100


def test_graph_memory_is_measured_where_nothing_can_be_kept(runner_module: Any, file: Path) -> None:
    file.mkdir()
    graph_memory.install(logger)

    assert runner_module._profile_cudagraph_memory(runner()) == 100


def test_vllm_without_the_profile_is_left_unchanged(runner_module: Any, caplog: pytest.LogCaptureFixture) -> None:
    del runner_module._profile_cudagraph_memory

    with caplog.at_level(logging.INFO, logger.name):
        graph_memory.install(logger)

    assert "finds no profile" in caplog.text


CARD = SimpleNamespace(name="NVIDIA H200", total_memory=1)


def configuration(**scheduler: int) -> Any:
    compilation = SimpleNamespace(cudagraph_capture_sizes=[1, 2], cudagraph_mode="FULL_AND_PIECEWISE")
    sequences = SimpleNamespace(**{"max_num_seqs": 8, "max_num_batched_tokens": 64, **scheduler})
    model = SimpleNamespace(max_model_len=1024)
    more = {"lora_config": None, "speculative_config": None, "compute_hash": lambda: "model"}
    return SimpleNamespace(compilation_config=compilation, scheduler_config=sequences, model_config=model, **more)


@pytest.mark.contract
def test_graph_memory_belongs_to_a_card_a_configuration_and_vllms_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda: CARD)
    key = graph_memory._key(configuration())

    assert graph_memory._key(configuration()) == key
    assert graph_memory._key(configuration(max_num_seqs=16)) != key
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "0")
    assert graph_memory._key(configuration()) != key
