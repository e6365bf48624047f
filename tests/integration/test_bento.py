"""A Bento away from its repository: built, installed from its own lock, served without any network, asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
from uv import find_uv_bin

from gptoss_bento.bench.servers import free_port
from tests.server import MODEL, REPOSITORY

pytestmark = pytest.mark.slow

# Of the surroundings only what finds programs and packages.
KEPT = ("PATH", "SSL_CERT_FILE", "UV_CACHE_DIR", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "PIP_FIND_LINKS")
NO_NETWORK = ["unshare", "--net", "--map-root-user"]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Those of a user who has never been here. uv's cache stays, so that nothing is downloaded twice."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    cache = subprocess.run([find_uv_bin(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    links = {"UV_FIND_LINKS": kept.pop("PIP_FIND_LINKS").replace(" ", ",")} if "PIP_FIND_LINKS" in kept else {}
    own = {"HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml"), "UV_CACHE_DIR": cache}
    return {**links, **kept, **own}


def test_bento_serves_from_a_clean_environment_without_network(variables: dict[str, str], tmp_path: Path) -> None:
    build = [sys.executable, "-m", "gptoss_bento", "build", "demo"]
    tag = run(build, {**variables, "PYTHONPATH": str(REPOSITORY / "src")}, REPOSITORY).strip()
    python = installed(Path(variables["BENTOML_HOME"], "bentos", *tag.split(":")), tmp_path / "venv", variables)
    (tmp_path / "empty").mkdir()
    port = free_port()
    serve = [python, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]

    observer = [sys.executable, "-m", "tests.offline", str(port), MODEL, *serve]
    seen = json.loads(run([*NO_NETWORK, *observer], {**variables, "PYTHONPATH": str(REPOSITORY)}, tmp_path / "empty"))

    assert not seen["reaches_outside"]
    assert "Paris" in seen["chat"]["choices"][0]["message"]["content"]
    assert seen["job"]["status"] == "COMPLETED"
    assert "Paris" in str(seen["job"]["output"])


def installed(bento: Path, folder: Path, variables: Mapping[str, str]) -> str:
    """The Python of an environment that holds exactly what the Bento's lock says, made as docs/images.md says."""
    uv = find_uv_bin()
    run([uv, "venv", "--python", sys.executable, str(folder)], variables, bento)
    index = [] if wheels_at_hand(variables) else ["--torch-backend", "cpu"]
    python = str(folder / "bin" / "python")
    run([uv, "pip", "sync", *index, "--python", python, "env/python/requirements.txt"], variables, bento)
    lend_bytecode(folder)
    return python


def lend_bytecode(folder: Path) -> None:
    """Links to what this environment has compiled of the same files, for compiling 20,000 takes a minute.

    Python compiles again what does not fit: each names the size and time of its source, which uv keeps.
    """
    ours = Path(sysconfig.get_path("purelib"))
    theirs = folder / "lib" / ours.parent.name / ours.name
    for compiled in ours.rglob("__pycache__/*.pyc"):
        target = theirs / compiled.relative_to(ours)
        if target.parent.parent.is_dir() and not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(compiled)


def wheels_at_hand(variables: Mapping[str, str]) -> bool:
    """Whether this machine has torch's CPU build in a folder; elsewhere it comes from PyTorch's own index."""
    folders = variables.get("UV_FIND_LINKS", "").split(",")
    return any(list(Path(folder).glob("torch-*+cpu-*.whl")) for folder in folders)


def run(command: list[str], variables: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
