"""Which GPUs the workers of `bentoml serve` see, on machines that NVML makes up. Without vLLM, for seconds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests import fake_nvml
from tests.holds import serve_without_vllm
from tests.server import REPOSITORY, ServedProcess

pytestmark = pytest.mark.slow

LIMITS = ("CUDA_VISIBLE_DEVICES", "TENSOR_PARALLEL_SIZE", "BENTOML_CONFIG")


def variables(folder: Path, **further: str) -> dict[str, str]:
    """Of a machine with four H100s, and of a named profile that serves a model which is at hand."""
    fake = Path(fake_nvml.__file__).parent
    path = os.pathsep.join(filter(None, (str(fake), str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {
        "PYTHONPATH": path,
        "FAKE_GPUS": "h100x4",
        "PROFILE": "gpt-oss-120b",
        "MODEL_NAME": "demo",
        "API_WORKERS": "2",
        "TMPDIR": str(folder),
        **further,
    }


def planned(served: ServedProcess, name: str) -> str:
    """The value and the origin of a row of the plan in the log."""
    found = re.search(rf"^  {name} +(.+)$", served.output(), re.MULTILINE)
    assert found, served.output()[-3000:]
    return " ".join(found[1].split())


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("visible", "size"), [(None, "4 [number of GPUs]"), ("GPU-00000003,1", "2 [number of GPUs]")], ids=["all", "two"]
)
def test_gpus_of_a_named_profile_are_all_those_that_the_operator_leaves(
    tmp_path: Path, visible: str | None, size: str
) -> None:
    limits = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    with serve_without_vllm(tmp_path, variables(tmp_path, **limits)) as served:
        served.wait_until_ready()

        assert [worker.environ().get("CUDA_VISIBLE_DEVICES") for worker in served.workers()] == [visible] * 2
        assert planned(served, "--tensor-parallel-size") == size
        assert planned(served, "API workers") == "2 [API_WORKERS]"
