"""`bundle_weights`: what `bentoml build` writes down of a model, and what `bentoml containerize` makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
import pytest
import yaml
from bentoml._internal.container import construct_containerfile

from gptoss_bento.artifacts.prepare import in_bento
from tests.hub import COMMIT, Hub, serving
from tests.server import REPOSITORY

# BentoML's image class brings code that pathspec and pydantic call deprecated.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = "openai/gpt-oss-20b"
FILES = {
    "config.json": b'{"model_type": "gpt_oss"}',
    "model.safetensors": os.urandom(10_000),
    "original/model.safetensors": b"again",
    "metal/model.bin": b"and again",
}


@dataclass(frozen=True)
class Context:
    """What a builder of images gets."""

    dockerfile: str
    folder: Path


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving(Hub(FILES, model=MODEL)) as hub:
        yield hub


@pytest.fixture(scope="module")
def bento(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    home = tmp_path_factory.mktemp("home")
    own = {"HOME": str(home), "BENTOML_HOME": str(home), "PATH": os.environ["PATH"], "BENTOML_DO_NOT_TRACK": "True"}
    arguments = ["--arg", "profile=gpt-oss-20b", "--arg", "bundle_weights=true", "--version", "bundled"]
    command = [sys.executable, "-m", "bentoml", "build", *arguments]
    variables = {**own, "HF_ENDPOINT": hub.url}
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return home / "bentos" / "gptoss-bento" / "bundled"


@pytest.fixture(scope="module")
def context(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HF_CACHE_DIR", str(cache))
        built = bentoml.Bento.from_path(str(bento))
        with construct_containerfile(built, enable_buildkit=False) as (folder, dockerfile):
            yield Context(Path(dockerfile).read_text(), Path(folder))


def test_bento_names_the_commit_and_what_stays_out_but_holds_no_weights(bento: Path, hub: Hub) -> None:
    description: dict[str, Any] = yaml.safe_load((bento / "bento.yaml").read_text())
    (service,) = description["services"]
    (model,) = service["models"]

    assert model["registry"] == "huggingface"
    assert model["metadata"] == {
        "model_id": MODEL,
        "revision": COMMIT,
        "endpoint": hub.url,
        "include": None,
        "exclude": ["original/**", "metal/**"],
    }
    assert description["args"]["bundle_weights"] in (True, "true")
    assert not list(bento.rglob("*.safetensors"))


def test_image_has_the_serving_files_where_the_service_finds_them(context: Context, hub: Hub) -> None:
    weights = in_bento(MODEL, context.folder / "hf-models")

    assert weights is not None
    assert weights.name == COMMIT
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == {
        name: content for name, content in FILES.items() if "/" not in name
    }
    assert hub.downloaded() == {"config.json", "model.safetensors"}
    assert "ENV BENTOML_HF_CACHE_DIR=/home/bentoml/bento/hf-models" in context.dockerfile
    assert "COPY --chown=bentoml:bentoml . ./" in context.dockerfile
