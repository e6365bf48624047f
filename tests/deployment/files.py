"""The files of docs/deployment, as the tools that they are for read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.server import REPOSITORY

FOLDER = REPOSITORY / "docs" / "deployment"
GPU_PROFILES = ("gpt-oss-20b", "gpt-oss-120b")
OVERLAYS = ("demo", *GPU_PROFILES)

_METRIC = re.compile(r"\b(?:vllm:|bentoml_|gptoss_bento_)\w+")


def document(name: str) -> Any:
    """A YAML or JSON file."""
    return yaml.safe_load((FOLDER / name).read_text())


def tool(name: str) -> str:
    """A program beside the interpreter, where the development environment has it, or on the path."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, f"{name} is missing; scripts/test installs it"
    return found


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=FOLDER)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def manifests(overlay: str) -> tuple[dict[str, Any], ...]:
    """What `kubectl apply -k` would send."""
    rendered = _output(tool("kubectl"), "kustomize", f"kubernetes/{overlay}")
    return tuple(yaml.safe_load_all(rendered))


def manifest(overlay: str, kind: str) -> dict[str, Any]:
    """The only one of its kind."""
    (found,) = (each for each in manifests(overlay) if each["kind"] == kind)
    return found


@cache
def compose(*files: str) -> dict[str, Any]:
    """What `docker compose` makes of its files with the example's settings."""
    chosen = [argument for file in files for argument in ("--file", f"compose/{file}")]
    text = _output(tool("docker-compose"), "--env-file", "compose/.env.example", *chosen, "config", "--format", "json")
    read: dict[str, Any] = json.loads(text)
    return read


def queries() -> dict[str, str]:
    """All PromQL, by where it stands."""
    dashboard = document("monitoring/grafana-dashboard.json")
    panels = {f"panel {panel['title']}": panel["targets"] for panel in dashboard["panels"]}
    found = {f"{place}, {each['refId']}": each["expr"] for place, targets in panels.items() for each in targets}
    triggers = document("kubernetes/keda/scaled-object.yaml")["spec"]["triggers"]
    return found | {f"trigger {trigger['name']}": trigger["metadata"]["query"] for trigger in triggers}


def metric_names() -> set[str]:
    """Every metric that the dashboard and the autoscaler ask Prometheus for."""
    return {name for query in queries().values() for name in _METRIC.findall(query)}
