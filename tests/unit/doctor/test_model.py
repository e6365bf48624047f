from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.artifacts.prepare import VOCABULARY_FILE
from gptoss_bento.doctor import model
from gptoss_bento.doctor.finding import Finding, Severity, exit_code
from gptoss_bento.doctor.model import check_demo, check_disk, check_model, check_vocabulary
from tests.unit.doctor.fake_hub import FakeHub

MODEL = "openai/gpt-oss-20b"
GB = 1_000_000_000
VOCABULARY = b"IQ== 0\nIg== 1\n"


async def examined(hub: FakeHub, name: str = MODEL, free: int = 100 * GB, network: bool = True) -> list[Finding]:
    return await check_model(name, None, hub, 0.2, network, free)


def severities(findings: list[Finding]) -> list[str]:
    return [f"{finding.name} {finding.severity}" for finding in findings]


# Where the model is


async def test_model_in_the_cache_needs_neither_network_nor_disk(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, holds={MODEL}, offline=True)

    (finding,) = await examined(hub, free=0)

    assert (finding.severity, finding.found) == (Severity.OK, f"{MODEL} is in the cache {tmp_path}")
    assert hub.asked == []


async def test_model_on_the_hub_needs_room(tmp_path: Path) -> None:
    findings = await examined(FakeHub(tmp_path), free=20 * GB)

    assert severities(findings) == ["model ok", "disk ok"]
    assert findings[1].found == f"20.0 GB free at {tmp_path}, 13.0 GB needed"


async def test_disk_without_room_is_found_before_the_download(tmp_path: Path) -> None:
    findings = await examined(FakeHub(tmp_path), free=12 * GB)

    assert severities(findings) == ["model ok", "disk error"]
    assert exit_code(findings) == 69
    assert "HF_HOME" in findings[1].remedy


async def test_interrupted_download_counts(tmp_path: Path) -> None:
    findings = await examined(FakeHub(tmp_path, part=10 * GB), free=5 * GB)

    assert severities(findings) == ["model ok", "disk ok"]


async def test_hub_that_is_down_leaves_the_known_size_to_compare(tmp_path: Path) -> None:
    findings = await examined(FakeHub(tmp_path, OSError("no route")), free=1 * GB)

    assert severities(findings) == ["model error", "disk error"]
    assert findings[1].found == f"1.0 GB free at {tmp_path}, 13.8 GB needed"


async def test_model_of_unknown_size_is_a_note(tmp_path: Path) -> None:
    findings = await examined(FakeHub(tmp_path, OSError("no route")), "someone/model")

    assert severities(findings) == ["model error", "disk note"]


async def test_hub_that_hangs_does_not_hold_up_the_doctor(tmp_path: Path) -> None:
    answers = threading.Event()  # set once the doctor has done without

    findings = await examined(FakeHub(tmp_path, answers=answers))

    answers.set()
    assert severities(findings) == ["model warning", "disk ok"]


async def test_hub_is_not_asked_without_network(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)

    findings = await examined(hub, network=False)

    assert severities(findings) == ["model note", "disk ok"]
    assert hub.asked == []


async def test_folder_is_not_searched_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub = FakeHub(tmp_path)

    findings = await examined(hub, str(tmp_path))

    assert severities(findings) == ["model ok"]
    assert hub.asked == []


async def test_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    (finding,) = await examined(FakeHub(tmp_path), str(tmp_path / "missing"))

    assert "there is no such folder" in finding.found
    assert finding.remedy
    assert exit_code([finding]) == 69


# Disk


def test_demo_comes_with_the_code_and_needs_a_little_room(tmp_path: Path) -> None:
    assert severities(list(check_demo(tmp_path, 1 * GB))) == ["model ok", "disk ok"]
    assert severities(list(check_demo(tmp_path, 1_000))) == ["model ok", "disk error"]


def test_demo_that_is_there_already_needs_no_room(tmp_path: Path) -> None:
    prepare.demo_folder(tmp_path).mkdir()

    assert severities(list(check_demo(tmp_path, 0))) == ["model ok"]


def test_disk_of_a_missing_folder_is_that_of_its_parent(tmp_path: Path) -> None:
    (finding,) = check_disk(tmp_path / "not" / "yet", 1 * GB, 5 * GB)

    assert finding.found == f"5.0 GB free at {tmp_path}, 1.0 GB needed"


def test_disk_with_hardly_enough_room_is_a_warning(tmp_path: Path) -> None:
    (finding,) = check_disk(tmp_path, 10 * GB, 10_500_000_000)

    assert finding.severity is Severity.WARNING


def test_disk_that_cannot_be_written_to_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write everywhere

    (finding,) = check_disk(tmp_path, 1, 5 * GB)

    assert finding.found.startswith(f"{tmp_path} cannot be written by uid ")
    assert exit_code([finding]) == 74


def test_disk_of_this_machine_is_checked(tmp_path: Path) -> None:
    assert [finding.name for finding in check_disk(tmp_path, 1)] == ["disk"]


# Vocabulary


@pytest.fixture(autouse=True)
def small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """These few bytes are the published vocabulary."""
    monkeypatch.setattr(prepare, "VOCABULARY_SHA256", hashlib.sha256(VOCABULARY).hexdigest())


def put(folder: Path, content: bytes = VOCABULARY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY_FILE).write_bytes(content)
    return folder


def none_installed(_: str) -> str | None:
    return None


def test_vocabulary_in_the_cache_is_verified(tmp_path: Path) -> None:
    put(tmp_path / "vocabulary")

    (finding,) = check_vocabulary(tmp_path, None, none_installed)

    assert finding.severity is Severity.OK
    assert VOCABULARY_FILE in finding.found


def test_operators_damaged_vocabulary_is_an_error(tmp_path: Path) -> None:
    (finding,) = check_vocabulary(tmp_path, put(tmp_path / "mine", b"damaged"), none_installed)

    assert "is damaged: SHA-256" in finding.found
    assert finding.remedy
    assert exit_code([finding]) == 69


def test_operators_folder_without_vocabulary_is_a_warning(tmp_path: Path) -> None:
    put(tmp_path / "vocabulary")

    findings = list(check_vocabulary(tmp_path, tmp_path / "mine", none_installed))

    assert severities(findings) == ["vocabulary warning", "vocabulary ok"]
    assert str(tmp_path / "mine") in findings[0].found


def test_vocabulary_that_the_start_will_bring_is_a_note(tmp_path: Path) -> None:
    (finding,) = check_vocabulary(tmp_path, None, lambda name: "0.4.0" if name == "quicktok-v1" else None)

    assert finding.severity is Severity.NOTE


@pytest.mark.parametrize("content", [None, b"half of it"])
def test_vocabulary_that_only_a_download_brings_is_a_warning(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        put(tmp_path / "vocabulary", content)

    (finding,) = check_vocabulary(tmp_path, None, none_installed)

    assert finding.severity is Severity.WARNING
    assert "TIKTOKEN_ENCODINGS_BASE" in finding.remedy


def test_known_sizes_are_those_of_the_profiles() -> None:
    assert set(model.KNOWN_BYTES) == {"openai/gpt-oss-20b", "openai/gpt-oss-120b"}
