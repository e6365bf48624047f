"""Baking against a fake hub, through the hub's own library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest

import gptoss_bento
from gptoss_bento.artifacts import prepare
from gptoss_bento.bento import bake as baking
from gptoss_bento.config import environment, manifest
from gptoss_bento.config.manifest import Manifest, Source
from gptoss_bento.config.profile import load_profile
from gptoss_bento.config.settings import ServerSettings, Settings
from gptoss_bento.demo.checkpoint import CONFIG
from gptoss_bento.errors import ArtifactError, ConfigurationError
from tests.configs import OTHER
from tests.hub import COMMIT, MODEL, Hub, serving
from tests.waiting import HANG_S, wait_for

TOKEN = "hf_averysecrettoken"
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": os.urandom(300_000),
    "original/model.safetensors": b"again",
    "metal/model.bin": b"and again",
}
LARGE_WEIGHTS = os.urandom(24_000_000)
KEPT_BYTES = 10 * 1024**2  # of half of them: the library writes so many at a time
WANTED = {"config.json", "model.safetensors"}

Bake = Callable[..., Manifest]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(FILES)) as hub:
        yield hub


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; made once, for this is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_from_download", lambda: b"")  # not what is tested here
        return prepare.find_vocabulary(tmp_path_factory.mktemp("vocabulary")).parent


@pytest.fixture
def cache(tmp_path: Path, vocabulary: Path) -> Path:
    shutil.copytree(vocabulary, tmp_path / "cache" / "vocabulary")
    return tmp_path / "cache"


@pytest.fixture
def bake(cache: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Bake:
    """Bakes what these settings name, by default the hub's model."""
    home = cache / "huggingface"
    fetch = partial(huggingface_hub.snapshot_download, endpoint=hub.url, cache_dir=home / "hub", token=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)

    def run(model: str | None = MODEL, **said: object) -> Manifest:
        settings = Settings(cache_dir=cache, model_name=model, **said)  # type: ignore[arg-type]
        return baking.bake(settings, load_profile("gpt-oss-20b"), home)

    return run


def model_in(baked: Manifest | None) -> Source:
    assert baked is not None
    return next(source for source in baked.sources if source.name == MODEL)


def test_files_that_serve_are_fetched_alone_and_listed_in_the_manifest(bake: Bake, hub: Hub, cache: Path) -> None:
    bake()

    assert hub.downloaded() == WANTED
    model = model_in(manifest.read(cache))
    assert model.commit == COMMIT
    assert {file.path for file in model.files} == WANTED
    assert model.folder == f"huggingface/hub/models--acme--tiny/snapshots/{COMMIT}"
    assert all((cache / model.folder / file.path).stat().st_size == file.bytes for file in model.files)


@pytest.mark.parametrize("way", ["cut", "reset"])
def test_transfer_that_is_interrupted_resumes(
    way: str, bake: Bake, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_bento.artifacts.resumable_downloads._PAUSE_S", 0.0)
    hub.files = {**FILES, "model.safetensors": LARGE_WEIGHTS}
    getattr(hub, way).add("model.safetensors")

    baked = bake()

    assert f"bytes={KEPT_BYTES}-" in {request.range for request in hub.requests}
    assert (cache / model_in(baked).folder / "model.safetensors").read_bytes() == LARGE_WEIGHTS


@pytest.mark.parametrize("name", sorted(WANTED))
def test_file_with_another_hash_is_refused_and_removed(name: str, bake: Bake, hub: Hub, cache: Path) -> None:
    hub.damaged.add(name)

    with pytest.raises(ArtifactError, match=f"{MODEL}: {name} came damaged"):
        bake()

    assert not (cache / manifest.NAME).exists()
    hub.damaged.clear()
    assert {file.path for file in model_in(bake()).files} == WANTED  # fetched again


def test_architecture_that_is_unknown_is_refused_before_its_weights_are_fetched(bake: Bake, hub: Hub) -> None:
    hub.files = {**FILES, "config.json": json.dumps(OTHER).encode()}

    with pytest.raises(ConfigurationError, match="says Qwen3ForCausalLM"):
        bake()
    assert hub.downloaded() == {"config.json"}


def test_architecture_that_is_unknown_is_baked_if_allowed(bake: Bake, hub: Hub) -> None:
    hub.files = {**FILES, "config.json": json.dumps(OTHER).encode()}

    assert model_in(bake(server=ServerSettings(allow_other_architectures=True))).commit == COMMIT


def test_model_without_a_config_is_refused(bake: Bake, hub: Hub) -> None:
    hub.files = {"model.safetensors": b"weights"}

    with pytest.raises(ArtifactError, match=r"no config\.json|is not there"):
        bake()


def test_tokenizer_of_another_model_comes_without_weights(bake: Bake, hub: Hub) -> None:
    baked = bake(None, tokenizer=MODEL, engine={"tokenizer_revision": COMMIT})

    assert hub.downloaded() == {"config.json"}
    assert model_in(baked).asked == COMMIT


def test_model_that_speculates_comes_too(bake: Bake) -> None:
    assert model_in(bake(None, engine={"speculative_config": {"method": "eagle3", "model": MODEL}})).commit == COMMIT


def test_model_without_a_name_is_not_fetched(bake: Bake, hub: Hub) -> None:
    assert [source.name for source in bake(None).sources] == [prepare.VOCABULARY_FILE]
    assert hub.requests == []


def test_folder_is_left_where_it_is(bake: Bake, hub: Hub, tmp_path: Path) -> None:
    assert bake(str(tmp_path)).models == ()
    assert hub.requests == []


def test_operators_vocabulary_is_copied_in(vocabulary: Path, tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "new", vocabulary_dir=vocabulary)

    (source,) = baking.bake(settings, None, tmp_path).sources

    assert source.folder == "vocabulary"
    assert (tmp_path / "new" / "vocabulary" / prepare.VOCABULARY_FILE).is_file()


def test_demo_model_is_baked_for_its_profile(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(target: Path, _: Path) -> None:
        target.mkdir(parents=True)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr("gptoss_bento.demo.checkpoint.expand", expand)

    baked = baking.bake(Settings(cache_dir=cache), load_profile("demo"), cache / "huggingface")

    assert [source.name for source in baked.sources] == [prepare.VOCABULARY_FILE, "demo"]
    assert baked.models == ()  # so the hub may stay on
    assert loaded(cache).derived == {}


# What was baked, at start


def loaded(cache: Path, **variables: str) -> Settings:
    return environment.load_settings({"GPTOSS_BENTO_CACHE": str(cache), **variables})


def test_baked_model_is_served_with_the_hub_switched_off(bake: Bake, cache: Path) -> None:
    bake()

    origin = str(cache / manifest.NAME)
    assert loaded(cache).derived == {
        "HF_HOME": (str(cache / "huggingface"), origin),
        "HF_HUB_OFFLINE": ("1", origin),
        "TRANSFORMERS_OFFLINE": ("1", origin),
    }


def test_operators_own_cache_and_switch_win_over_what_was_baked(bake: Bake, cache: Path) -> None:
    bake()

    assert loaded(cache, HF_HOME="/mine").derived == {}
    assert "HF_HUB_OFFLINE" not in loaded(cache, HF_HUB_OFFLINE="0").derived
    assert "HF_HUB_OFFLINE" not in loaded(cache, BASE_PATH="/volume").derived


def test_baked_files_are_readable_by_another_user(bake: Bake, cache: Path) -> None:
    bake()

    files = [path for path in (cache / "huggingface" / "hub").rglob("*") if ".locks" not in path.parts]
    assert {path.name for path in files if not path.stat().st_mode & 0o004} == set()
    assert "trees" in {path.name for path in files}  # which the library keeps to its own user


def test_verification_finds_a_changed_byte(bake: Bake, cache: Path) -> None:
    baked = bake()
    assert list(manifest.problems(baked, cache)) == []

    weights = (cache / model_in(baked).folder / "model.safetensors").resolve()
    content = weights.read_bytes()
    weights.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    (problem,) = manifest.problems(baked, cache)
    assert "model.safetensors has the SHA-256" in problem


# The command, as an image's build runs it


def started(cache: Path, hub: Hub, **variables: str) -> subprocess.Popen[str]:
    source = str(Path(gptoss_bento.__file__).parents[1])
    own = {"HOME": str(cache.parent), "PATH": "/usr/bin:/bin", "PYTHONPATH": source, "GPTOSS_BENTO_CACHE": str(cache)}
    environ = {**own, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", "MODEL_NAME": MODEL, **variables}
    words = [sys.executable, "-m", "gptoss_bento", "bake"]
    return subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(cache: Path, hub: Hub, **variables: str) -> subprocess.CompletedProcess[str]:
    process = started(cache, hub, **variables)
    output, errors = process.communicate(timeout=HANG_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_bake_resumes_after_a_kill(cache: Path, hub: Hub) -> None:
    hub.files = {**FILES, "model.safetensors": LARGE_WEIGHTS}
    hub.stuck.add("model.safetensors")
    blobs = cache / "huggingface" / "hub" / "models--acme--tiny" / "blobs"
    own = {"HF_HOME": str(cache / "huggingface")}

    with started(cache, hub, **own) as process:
        try:
            assert hub.is_stuck.wait(HANG_S)
            wait_for((blobs / hub.etag("config.json")).exists)
            wait_for(lambda: any(path.stat().st_size for path in blobs.glob("*.incomplete")))
        finally:
            process.kill()
    (left,) = blobs.glob("*.kept.incomplete")
    size = left.stat().st_size
    hub.requests.clear()
    done = command(cache, hub, **own)

    assert done.returncode == 0, done.stderr
    assert hub.downloaded() == {"model.safetensors"}
    assert {each.range for each in hub.requests} == {None, f"bytes={size}-"}
    baked = manifest.read(cache)
    assert baked is not None
    assert list(manifest.problems(baked, cache)) == []
    assert not left.exists()


def test_token_comes_from_a_file_and_stays_nowhere(cache: Path, hub: Hub, tmp_path: Path) -> None:
    hub.token = TOKEN
    (tmp_path / "secret").write_text(TOKEN + "\n")
    models = tmp_path / "models"

    done = command(cache, hub, HF_TOKEN_PATH=str(tmp_path / "secret"), BASE_PATH=str(models))

    assert done.returncode == 0, done.stderr
    assert {each.authorization for each in hub.requests if MODEL in each.path} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    (tmp_path / "secret").unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert model_in(manifest.read(cache)).folder.startswith(f"{models}/huggingface-cache/hub/")
    assert loaded(cache, BASE_PATH=str(models)).derived["HF_HUB_OFFLINE"][0] == "1"


def test_token_that_is_wrong_is_reported_without_the_token(cache: Path, hub: Hub, tmp_path: Path) -> None:
    hub.token = "another"
    (tmp_path / "secret").write_text(TOKEN)

    done = command(cache, hub, HF_TOKEN_PATH=str(tmp_path / "secret"))

    assert done.returncode == 69
    assert MODEL in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
