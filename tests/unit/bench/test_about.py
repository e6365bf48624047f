from __future__ import annotations

import json

import pytest

from gptoss_bento import __version__
from gptoss_bento.bench.about import about
from gptoss_bento.bench.compare import FirstLoads, Shape
from gptoss_bento.bench.token_load import Lengths, TokenLoad
from gptoss_bento.hardware import probe
from tests.fakes import H200, machine


def test_report_describes_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe", lambda _: machine(H200))
    load = TokenLoad(64, 64, Lengths(128, 256))

    found = json.loads(json.dumps(about(["bench", "--runs", "2"], Shape((load,), first=FirstLoads(load)))))

    assert found["arguments"] == ["bench", "--runs", "2"]
    assert "NVIDIA H200" in found["machine"]
    assert found["versions"]["gptoss-bento"] == __version__
    assert {"torch", "bentoml"} <= set(found["versions"])
    assert found["shape"]["first"]["load"]["lengths"] == {"input_tokens": 128, "output_tokens": 256, "spread": 0.0}
    assert found["measured_at"].endswith("+00:00")
