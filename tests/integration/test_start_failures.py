"""A start that cannot succeed: one clear cause, a documented exit code, nothing left behind."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from tests.server import serve

pytestmark = pytest.mark.slow


STOPPED = "gptoss-bento: stopped"


def ended(folder: Path, variables: Mapping[str, str], port: int | None = None) -> tuple[int, str]:
    """The exit code, and the last lines, of a start that must fail by itself."""
    with (
        tempfile.TemporaryDirectory() as temporary,  # pytest's folders have names too long for the workers' sockets
        serve(folder, {**variables, "TMPDIR": temporary}, port=port) as served,
    ):
        exit_code = served.wait_until_ended()
        before, *said = served.output().split(STOPPED)
        assert len(said) == 1, before[-3000:]
        words = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert [line for line in words if str(served.port) in line] == []
        assert list(Path(temporary).glob("gptoss-bento-*")) == []
        return exit_code, said[0]


@pytest.mark.parametrize(
    ("variables", "exit_code", "words"),
    [
        pytest.param({"PROFILE": "gpt-oss-21b"}, 78, ["gpt-oss-21b", "gpt-oss-20b"], id="unknown profile"),
        pytest.param({"PROFILE": "gpt-oss-20b"}, 78, ["needs 1 GPU", "no GPU"], id="no GPU for the profile"),
        pytest.param({"MODEL_NAME": "/no/such/folder"}, 69, ["/no/such/folder"], id="model folder missing"),
        pytest.param({"MODEL_NAME": "nobody/nothing"}, 69, ["nobody/nothing", "HF_TOKEN"], id="model not on the hub"),
        pytest.param(
            {"MAX_MODEL_LEN": "many", "ENFORCE_EAGER": "perhaps"}, 78, ["many", "ENFORCE_EAGER", "perhaps"], id="text"
        ),
        pytest.param({"MAX_MODEL_LEN": "200000"}, 78, ["200000"], id="context longer than the model's"),
        pytest.param({"VLLM_EXTRA_ARGS": "--no-such-option"}, 78, ["--no-such-option"], id="unknown vLLM argument"),
        pytest.param({"TOOL_CALL_PARSER": "nonsense"}, 78, ["nonsense"], id="unknown tool parser"),
    ],
)
def test_start_that_cannot_succeed_names_the_cause(
    tmp_path: Path, variables: dict[str, str], exit_code: int, words: list[str]
) -> None:
    code, said = ended(tmp_path, {"PROFILE": "demo", **variables})
    assert code == exit_code
    for word in words:
        assert word in said


def test_port_in_use_is_reported_and_nothing_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = ended(tmp_path, {"PROFILE": "demo"}, port=taken.getsockname()[1])
    assert code == 71
    assert "--port" in said


def test_vocabulary_that_is_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / prepare.VOCABULARY_FILE).write_text("IQ== 0\n")
    code, said = ended(tmp_path, {"PROFILE": "demo", "TIKTOKEN_ENCODINGS_BASE": str(tmp_path)})
    assert code == 69
    assert "damaged" in said


def test_model_with_damaged_weights_names_the_engines_own_error(tmp_path: Path) -> None:
    demo = prepare.prepare("demo", None, environment.cache_dir(), None)
    broken = tmp_path / "model"
    shutil.copytree(demo.model, broken)
    (broken / "model.safetensors").write_bytes(json.dumps({}).encode())
    code, said = ended(tmp_path, {"PROFILE": "demo", "MODEL_NAME": str(broken)})
    assert code == 70
    assert "Cause:" in said
