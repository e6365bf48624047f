from __future__ import annotations

import hashlib
import logging
import stat
import struct
from pathlib import Path
from types import SimpleNamespace

import httpx
import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from gptoss_bento.artifacts import prepare as artifacts
from gptoss_bento.artifacts.prepare import VOCABULARY_FILE, Artifacts, find_vocabulary
from gptoss_bento.demo import checkpoint
from gptoss_bento.errors import ArtifactError, ConfigurationError, MachineError
from tests.configs import SMALL, folder_with
from tests.fakes import Calls

VOCABULARY = b"IQ== 0\nIg== 1\n"


@pytest.fixture(autouse=True)
def small_vocabulary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These few bytes are the vocabulary that everybody expects; nothing is fetched unless a test says so."""
    if "real_vocabulary" in request.fixturenames:
        return
    monkeypatch.setattr(artifacts, "VOCABULARY_SHA256", hashlib.sha256(VOCABULARY).hexdigest())
    monkeypatch.setattr(artifacts, "_from_download", unreachable)
    monkeypatch.setattr(artifacts, "_from_package", unreachable)


@pytest.fixture
def real_vocabulary() -> None:
    """Leaves the expected SHA-256 as published."""


def unreachable() -> bytes:
    raise AssertionError("this source should not be asked")


def put(folder: Path, content: bytes = VOCABULARY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / VOCABULARY_FILE
    path.write_bytes(content)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# The vocabulary: the operator's folder


def test_vocabulary_of_the_operator_is_used_in_its_folder(tmp_path: Path, cache: Path) -> None:
    explicit = put(tmp_path / "mine")

    assert find_vocabulary(cache, explicit.parent) == explicit
    assert not cache.exists()


def test_operators_file_is_used_before_the_cache(tmp_path: Path, cache: Path) -> None:
    put(cache / "vocabulary")
    explicit = put(tmp_path / "mine")

    assert find_vocabulary(cache, explicit.parent) == explicit


def test_operators_damaged_file_is_refused_even_with_a_good_cache(tmp_path: Path, cache: Path) -> None:
    put(cache / "vocabulary")
    damaged = put(tmp_path / "mine", b"damaged")

    with pytest.raises(ArtifactError, match=r"damaged: SHA-256 .*TIKTOKEN_ENCODINGS_BASE") as caught:
        find_vocabulary(cache, damaged.parent)

    assert str(damaged) in str(caught.value)
    assert damaged.read_bytes() == b"damaged"


def test_folder_without_the_file_is_passed_over_with_a_warning(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = put(cache / "vocabulary")

    with caplog.at_level(logging.WARNING):
        assert find_vocabulary(cache, tmp_path) == cached

    assert f"TIKTOKEN_ENCODINGS_BASE={tmp_path} has no {VOCABULARY_FILE}" in caplog.text


# The vocabulary: cache and sources


def test_good_cache_is_used_without_asking_any_source(cache: Path) -> None:
    cached = put(cache / "vocabulary")

    assert find_vocabulary(cache) == cached


def test_download_is_asked_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_from_download", lambda: VOCABULARY)

    path = find_vocabulary(cache)

    assert path == cache / "vocabulary" / VOCABULARY_FILE
    assert path.read_bytes() == VOCABULARY


def test_damaged_cache_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache / "vocabulary", b"half of it")
    monkeypatch.setattr(artifacts, "_from_download", lambda: VOCABULARY)

    assert find_vocabulary(cache).read_bytes() == VOCABULARY


def test_cache_that_cannot_be_read_is_a_miss(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = put(cache / "vocabulary")
    read_bytes = Path.read_bytes
    refusals = [PermissionError(13, "Permission denied")]

    def refuse_once(path: Path) -> bytes:
        if path == cached and refusals:
            raise refusals.pop()
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_once)
    monkeypatch.setattr(artifacts, "_from_download", lambda: VOCABULARY)

    assert find_vocabulary(cache) == cached
    assert refusals == []
    assert cached.read_bytes() == VOCABULARY


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("no network"),
        httpx.ReadTimeout("slow"),
        OSError("odd"),
        ArtifactError("odd"),
        struct.error("odd"),
    ],
)
def test_package_is_asked_after_a_failed_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail() -> bytes:
        raise failure

    monkeypatch.setattr(artifacts, "_from_download", fail)
    monkeypatch.setattr(artifacts, "_from_package", lambda: VOCABULARY)

    assert find_vocabulary(cache).read_bytes() == VOCABULARY


def test_package_is_asked_after_a_download_with_wrong_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_from_download", lambda: b"<html>log in to this network</html>")
    monkeypatch.setattr(artifacts, "_from_package", lambda: VOCABULARY)

    assert find_vocabulary(cache).read_bytes() == VOCABULARY


def test_vocabulary_without_any_source_is_an_error_with_causes_and_remedies(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bytes:
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(artifacts, "_from_download", fail)
    monkeypatch.setattr(artifacts, "_from_package", lambda: b"another version")

    with pytest.raises(ArtifactError) as caught:
        find_vocabulary(cache)

    for words in ["download: no network", "quicktok-v1: wrong content", "TIKTOKEN_ENCODINGS_BASE", "install"]:
        assert words in str(caught.value)
    assert not (cache / "vocabulary" / VOCABULARY_FILE).exists()


def test_vocabulary_write_that_breaks_leaves_no_file_under_the_final_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = cache / "vocabulary" / VOCABULARY_FILE
    seen_before_the_last_step: list[bool] = []

    def cut_off(path: Path, target: Path) -> Path:
        assert path.parent.parent == target.parent  # a rename within one file system is one step
        assert path.read_bytes() == VOCABULARY
        seen_before_the_last_step.append(target.exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "_from_download", lambda: VOCABULARY)
    monkeypatch.setattr(Path, "replace", cut_off)

    with pytest.raises(KeyboardInterrupt):
        find_vocabulary(cache)

    assert seen_before_the_last_step == [False]
    assert list(final.parent.iterdir()) == []


def test_vocabulary_is_stored_alone_and_readable_by_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_from_download", lambda: VOCABULARY)

    path = find_vocabulary(cache)

    assert list(path.parent.iterdir()) == [path]
    (path.parent / "another").touch()  # as the umask has it
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "another").stat().st_mode)


# The vocabulary: each source


def answering(monkeypatch: pytest.MonkeyPatch, response: httpx.Response) -> list[str]:
    asked: list[str] = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        response.request = httpx.Request("GET", url)
        return response

    monkeypatch.setattr(httpx, "get", get)
    return asked


@pytest.mark.usefixtures("real_vocabulary")
def test_download_comes_from_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, httpx.Response(200, content=VOCABULARY))

    assert artifacts._from_download() == VOCABULARY
    assert asked == ["https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"]


@pytest.mark.usefixtures("real_vocabulary")
def test_error_page_is_no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, httpx.Response(503, content=VOCABULARY))

    with pytest.raises(httpx.HTTPStatusError):
        artifacts._from_download()


@pytest.mark.usefixtures("real_vocabulary")
def test_vocabulary_of_the_package_is_the_published_one() -> None:
    content = artifacts._from_package()

    assert hashlib.sha256(content).hexdigest() == artifacts.VOCABULARY_SHA256
    assert artifacts.VOCABULARY_SHA256.startswith("446a9538cb6c348e")


def package_with(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "o200k.vocab").write_bytes(content)
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)


WHOLE_PACKAGE = bytes.fromhex("02000000 0100 22 01000000 0100 21 00000000")


@pytest.mark.usefixtures("real_vocabulary")
def test_vocabulary_of_the_package_is_in_the_order_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_with(tmp_path, WHOLE_PACKAGE, monkeypatch)

    assert artifacts._from_package() == VOCABULARY


@pytest.mark.usefixtures("real_vocabulary")
@pytest.mark.parametrize("length", [0, 3, 4, 5, 6, len(WHOLE_PACKAGE) - 1])
def test_vocabulary_file_of_the_package_that_is_truncated_is_skipped(
    length: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_with(tmp_path, WHOLE_PACKAGE[:length], monkeypatch)
    answering(monkeypatch, httpx.Response(503))

    with pytest.raises(ArtifactError, match=r"package quicktok-v1: .*\. Put the file"):
        find_vocabulary(cache)


@pytest.mark.usefixtures("real_vocabulary")
def test_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ArtifactError, match="not installed"):
        artifacts._from_package()


# The model


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def prepare(model: str, cache: Path, revision: str | None = None) -> Artifacts:
    put(cache / "vocabulary")
    return artifacts.prepare(model, revision, cache, None)


def test_model_folder_is_used_where_it_is(tmp_path: Path, cache: Path) -> None:
    folder = model_folder(tmp_path / "model")

    assert prepare(str(folder), cache) == Artifacts(str(folder), cache / "vocabulary")


def test_model_folder_may_be_below_the_home_folder(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = model_folder(tmp_path / "model")

    assert prepare("~/model", cache).model == str(folder)


def test_model_folder_below_the_current_one_is_not_searched_on_the_hub(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "model")

    assert prepare("model", cache).model == "model"


def test_model_that_speculates_is_fetched_too(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache / "vocabulary")
    fetched: list[str] = []

    def snapshot_download(repo: str, **_: object) -> str:
        fetched.append(repo)
        return "/x"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = str(model_folder(tmp_path / "model"))

    for draft in ("a/draft", folder, None):
        artifacts.prepare(folder, None, cache, None, draft)

    assert fetched == ["a/draft"]


def test_tokenizer_of_another_model_is_fetched_without_weights(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache / "vocabulary")
    fetched: list[tuple[str, str | None, bool]] = []

    def snapshot_download(repo: str, *, revision: str | None, ignore_patterns: list[str], **_: object) -> str:
        fetched.append((repo, revision, "*.safetensors" in ignore_patterns))
        return "/x"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = str(model_folder(tmp_path / "model"))

    for tokenizer in (("a/tokenizer", "v2"), (folder, None), None):
        artifacts.prepare(folder, None, cache, None, tokenizer=tokenizer)

    assert fetched == [("a/tokenizer", "v2", True)]


def test_model_that_the_bento_names_is_taken_from_there(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache / "vocabulary")
    fetch = Calls(compute=lambda *_: "/x")
    monkeypatch.setattr(artifacts, "fetch", lambda model, *_, **__: fetch(model))
    snapshot = tmp_path / "models--openai--gpt-oss-20b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)

    found = [
        artifacts.prepare(model, revision, cache, None, bento_models=tmp_path).model
        for model, revision in [
            ("openai/gpt-oss-20b", None),
            ("OpenAI/GPT-OSS-20b", None),
            ("openai/gpt-oss-20b", "other"),
            ("a/b", None),
        ]
    ]

    # A revision that was asked for is not overruled.
    assert found == [str(snapshot), str(snapshot), "openai/gpt-oss-20b", "a/b"]
    assert fetch.made == [("openai/gpt-oss-20b",), ("a/b",)]


def test_hub_that_is_switched_off_is_named_in_the_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ArtifactError, match=r"switched off \(HF_HUB_OFFLINE\); switch it on, or set MODEL_NAME"):
        prepare("openai/gpt-oss-20b", cache)


def test_cache_of_the_hub_that_may_not_be_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(_: str, **__: object) -> str:
        raise PermissionError(13, "Permission denied", "/volume/models--openai--gpt-oss-20b")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    with pytest.raises(MachineError, match=r"/volume/models--openai--gpt-oss-20b may not be used by uid \d+"):
        prepare("openai/gpt-oss-20b", cache)


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "../missing", "~/missing"])
def test_model_path_with_a_typo_is_not_searched_on_the_hub(
    path: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetch = Calls()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)

    with pytest.raises(ArtifactError, match="there is no such folder"):
        prepare(path, cache)

    assert fetch.made == []


def test_folder_that_holds_no_model_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ArtifactError, match=r"no config\.json"):
        prepare(str(tmp_path / "empty"), cache)


def test_folder_without_weights_is_a_model_for_random_ones(tmp_path: Path, cache: Path) -> None:
    """LOAD_FORMAT=dummy."""
    folder = folder_with(tmp_path / "random", SMALL)

    assert prepare(str(folder), cache).model == str(folder)


def test_config_of_a_hub_model_is_checked_before_its_weights_are_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def snapshot_download(_: str, **options: object) -> str:
        asked.append(options["allow_patterns"])
        return "/somewhere"

    def refuse(folder: Path) -> None:
        raise ConfigurationError(f"{folder} is something else")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    put(cache / "vocabulary")

    with pytest.raises(ConfigurationError, match=r"^/somewhere is something else$"):
        artifacts.prepare("acme/other", None, cache, None, check=refuse)
    assert asked == [["config.json"]]

    artifacts.prepare("acme/tuned", None, cache, None, check=lambda _: None)
    assert asked == [["config.json"]] * 2 + [None]


def test_hub_model_is_fetched_at_its_revision_without_duplicate_weights(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(repo: str, **options: object) -> str:
        asked.update(repo=repo, **options)
        return "/somewhere"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    found = prepare("openai/gpt-oss-20b", cache, "v1")

    asked.pop("tqdm_class")
    assert found.model == "openai/gpt-oss-20b"
    assert asked == {
        "repo": "openai/gpt-oss-20b",
        "revision": "v1",
        "allow_patterns": None,
        "ignore_patterns": ["original/**", "metal/**"],
    }


def hub_response(status: int) -> httpx2.Response:  # the hub library has moved on to httpx2
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/x"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            HFValidationError("Repo id must be in the form 'a/b'.\nMore."),
            ["neither a folder nor a hub id", "form 'a/b')"],
        ),
        (RepositoryNotFoundError("401 not found.\nMore.", response=hub_response(401)), ["401 not found", "HF_TOKEN"]),
        (GatedRepoError("Access is restricted.", response=hub_response(403)), ["Access is restricted", "HF_TOKEN"]),
        (LocalEntryNotFoundError("cannot find the files locally"), ["cannot find the files", "network"]),
        (OSError("No space left on device"), ["No space left on device", "MODEL_NAME to a folder"]),
        (ConnectionResetError(), ["(ConnectionResetError)"]),
        (httpx.ConnectError("no network"), ["(no network)"]),
        (httpx2.ConnectError("no network"), ["(no network)"]),
        (RuntimeError("an error of some other library.\nMore."), ["(an error of some other library)"]),
    ],
)
def test_failed_fetch_is_one_sentence_with_its_cause(
    error: Exception, words: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)

    with pytest.raises(ArtifactError) as caught:
        prepare("openai/gpt-oss-20b", cache)

    message = str(caught.value)
    assert "openai/gpt-oss-20b" in message
    assert "\n" not in message
    assert "More" not in message
    for word in words:
        assert word.rstrip(")") in message


# The demo model


def test_demo_is_expanded_once_with_the_verified_vocabulary(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expand = Calls(compute=lambda target, _: target.mkdir(parents=True))
    monkeypatch.setattr(checkpoint, "expand", expand)

    first, second = prepare("demo", cache), prepare("demo", cache)

    assert first == second
    assert expand.made == [(Path(first.model), cache / "vocabulary" / VOCABULARY_FILE)]
    assert Path(first.model).parent == cache


def test_demo_weights_that_differ_get_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"one")
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path / "weights")
    before = artifacts._demo_fingerprint()

    (tmp_path / "weights").write_bytes(b"two")

    assert artifacts._demo_fingerprint() != before
    assert len(before) == 12


def test_demo_code_that_differs_gets_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = artifacts._demo_fingerprint()
    (tmp_path / "checkpoint.py").write_text("pass")
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "checkpoint.py"))

    assert artifacts._demo_fingerprint() != before
