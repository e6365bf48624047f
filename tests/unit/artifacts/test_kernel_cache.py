from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_bento.artifacts import compilers, kernel_cache
from gptoss_bento.artifacts.kernel_cache import NAME, Surroundings, unwritable_reason
from gptoss_bento.errors import ArtifactError, MachineError
from gptoss_bento.hardware.probe import Driver, Hardware, hardware_named
from gptoss_bento.planning.kernel_key import KERNEL_CACHES, Kernels
from gptoss_bento.planning.plan import EnginePlan, Planned
from tests.fakes import H200, Calls, machine
from tests.unit.planning.test_kernel_key import ENTRY, KEY, VERSIONS, plan_of


def plan_in(folder: Path, hardware: Hardware | None = None, /, **variables: str) -> EnginePlan:
    return plan_of("gpt-oss-20b", hardware, KERNEL_CACHE_DIR=str(folder), **variables)


def surroundings(can_write: bool = True, driver: str = "580.159") -> Surroundings:
    return Surroundings(
        variables={},
        driver=lambda: Driver(driver, (13, 0)),
        versions=lambda: VERSIONS,
        can_write=lambda _: can_write,
        tools=compilers.Tools(which=lambda name: name),
    )


def inspect(folder: Path, around: Surroundings | None = None) -> Kernels:
    return kernel_cache.inspect(plan_in(folder), folder, around or surroundings())


def triton_group(folder: Path, name: str = "hash") -> Path:
    """One kernel as Triton 3.7 keeps it: its files, and one that says where they are."""
    place = folder / "triton" / name
    place.mkdir(parents=True)
    (place / "k.cubin").write_bytes(b"code")
    group = place / "__grp__k.json"
    group.write_text(json.dumps({"child_paths": {"k.cubin": str(place / "k.cubin")}}))
    return group


# Looking


def test_folder_that_does_not_exist_is_cold_and_can_be_written(tmp_path: Path) -> None:
    found = inspect(tmp_path / "a" / "b")

    assert (found.is_warm, found.reason, found.unwritable) == (False, "nothing is there yet", "")
    assert not (tmp_path / "a").exists(), "looking writes nothing"


def test_folder_is_warm_after_a_start_has_filled_it(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "graph").write_bytes(b"12345")

    entry = kernel_cache.filled(inspect(tmp_path), 123.45, warmup=True)

    assert (entry.driver, entry.seconds, entry.bytes) == ("580.159", 123.5, 5)
    assert entry.said["max_num_batched_tokens"] == "2304"
    assert inspect(tmp_path).entry == entry


def test_filling_for_another_key_is_added_and_the_same_one_replaced(tmp_path: Path) -> None:
    found = inspect(tmp_path)
    other = replace(found, key=replace(found.key, arguments="ffffffff"))

    for each in (found, other, found):
        kernel_cache.filled(each, 1, warmup=True)

    assert [entry.key for entry in kernel_cache.read(tmp_path)] == [other.key, found.key]


@pytest.mark.parametrize("text", ["", "[]", '{"filled": [{"key": {}}]}', "no JSON"])
def test_manifest_that_cannot_be_read_is_none(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_text(text)

    assert kernel_cache.read(tmp_path) == ()
    assert NAME in caplog.text


def test_driver_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    def fail() -> Driver:
        raise MachineError("no")

    assert inspect(tmp_path, replace(surroundings(), driver=fail)).driver == ""


def test_installed_versions_have_torch_and_python() -> None:
    assert {"python", "torch"} <= kernel_cache.installed_versions().keys()


# In the plan


def test_plan_of_this_machine_is_settled(tmp_path: Path) -> None:
    settled = kernel_cache.settled(plan_in(tmp_path), surroundings())

    assert settled.kernels == inspect(tmp_path)
    assert settled.warnings == ()


def test_plan_of_a_machine_that_was_only_named_does_not_mention_this_folder(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, hardware_named("h200"))

    assert kernel_cache.settled(plan, surroundings()) is plan


def test_plan_warns_of_a_missing_compiler(tmp_path: Path) -> None:
    around = replace(surroundings(), tools=compilers.Tools(which=lambda _: None))

    (warning,) = kernel_cache.settled(plan_in(tmp_path), around).warnings

    assert warning.startswith("no C compiler (gcc or clang): Triton cannot build")


def test_plan_for_several_cards_without_nvcc_has_no_flashinfers_all_reduce(tmp_path: Path) -> None:
    around = replace(surroundings(), tools=compilers.Tools(which=lambda name: name if name == "gcc" else None))
    plan = plan_in(tmp_path, replace(machine(H200, H200), origin="probed"))

    settled = kernel_cache.settled(plan, around)

    assert settled.environment[compilers.ALL_REDUCE] == Planned("0", "no nvcc and no ninja")
    assert settled.kernels
    assert compilers.ALL_REDUCE in settled.kernels.said, "it is part of the key, as of vLLM's own"
    (warning,) = [each for each in settled.warnings if "ninja" in each]
    assert "fusing all-reduce" in warning


# A folder that cannot be written


def test_folder_that_cannot_be_written_is_named_with_the_user(tmp_path: Path) -> None:
    assert unwritable_reason(tmp_path, lambda _: False) == f"{tmp_path} cannot be written by uid {os.geteuid()}"


def test_folder_of_a_library_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "triton").mkdir()

    reason = unwritable_reason(tmp_path, lambda folder: folder.name != "triton")

    assert reason.startswith(f"{tmp_path / 'triton'} cannot be written")


def test_folder_that_this_user_may_not_read_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as hidden:
        hidden.setattr(os, "stat", refuse)
        found = kernel_cache._exists(tmp_path)

    assert not found


def test_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert unwritable_reason(tmp_path / "file" / "kernels") == f"{tmp_path / 'file'} is not a folder"


def test_folder_that_the_operator_named_is_used_with_a_warning(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, TRITON_CACHE_DIR="/mine")
    around = replace(surroundings(), can_write=lambda folder: folder == tmp_path)

    settled = kernel_cache.settled(plan, around)

    assert settled.environment["TRITON_CACHE_DIR"].value == "/mine"
    assert settled.warnings[0].startswith("TRITON_CACHE_DIR: / cannot be written")


def test_service_works_on_a_copy_of_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder, copy = tmp_path / "kernels", tmp_path / "copy"
    group = triton_group(folder)
    kernels = Kernels(folder, KEY, unwritable="no", replacement=copy)

    kernel_cache.replace_unwritable(kernels)

    copied = copy / group.relative_to(folder)
    assert json.loads(copied.read_text())["child_paths"] == {"k.cubin": str(copied.with_name("k.cubin"))}
    assert copy.stat().st_mode & 0o777 == 0o700 | folder.stat().st_mode & 0o777
    kernel_cache.replace_unwritable(kernels)  # another worker of the service


def test_copy_of_read_only_folders_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    group = triton_group(folder)
    for place in (group.parent, group.parent.parent, folder):
        place.chmod(0o555)

    kernel_cache.replace_unwritable(Kernels(folder, KEY, unwritable="no", replacement=tmp_path / "copy"))

    places = [path for path in (tmp_path / "copy").rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o700 for path in places} == {0o700}


def test_folder_that_is_not_there_and_cannot_be_made_is_replaced_by_an_empty_one(tmp_path: Path) -> None:
    kernel_cache.replace_unwritable(Kernels(Path("/nowhere"), KEY, unwritable="no", replacement=tmp_path / "copy"))

    assert list((tmp_path / "copy").iterdir()) == []


def test_folder_into_which_this_user_may_not_look_is_replaced_by_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "kernels").mkdir()
    monkeypatch.setattr(shutil, "copytree", Calls(compute=refuse))

    kernel_cache.replace_unwritable(Kernels(tmp_path / "kernels", KEY, unwritable="no", replacement=tmp_path / "copy"))

    assert list((tmp_path / "copy").iterdir()) == []
    assert "Permission denied" in caplog.text


def test_copy_of_read_only_files_is_relocated(tmp_path: Path) -> None:
    group = triton_group(tmp_path / "kernels")
    group.chmod(0o444)
    before = group.stat().st_ino

    shutil.move(tmp_path / "kernels", tmp_path / "moved")
    assert kernel_cache.relocate(tmp_path / "moved") == 1

    moved = tmp_path / "moved" / group.relative_to(tmp_path / "kernels")
    assert moved.stat().st_ino != before, "a new file in its place: root could write into the old one, too"
    assert [path.name for path in moved.parent.iterdir() if path.name.startswith(".")] == []


def test_folder_that_can_be_written_is_not_copied(tmp_path: Path) -> None:
    kernel_cache.replace_unwritable(Kernels(tmp_path, KEY))

    assert list(tmp_path.iterdir()) == []


# What a service notes


def test_service_notes_what_it_has_filled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kernel_cache.note_filled(inspect(tmp_path), 60, warmup=False)

    (entry,) = kernel_cache.read(tmp_path)
    assert (entry.warmup, entry.seconds) == (False, 60)
    assert "is warm now" in caplog.text


def test_service_notes_nothing_about_a_folder_that_was_warm_or_is_not_its_own(tmp_path: Path) -> None:
    for kernels in (Kernels(tmp_path, KEY, entry=ENTRY), Kernels(tmp_path, KEY, unwritable="no")):
        kernel_cache.note_filled(kernels, 60, warmup=True)

    assert list(tmp_path.iterdir()) == []


def test_service_continues_if_it_cannot_write_the_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")

    kernel_cache.note_filled(Kernels(tmp_path / "file", KEY), 60, warmup=True)

    assert "the next plan will not know" in caplog.text


# Another place


def test_kernels_of_triton_get_their_new_paths(tmp_path: Path) -> None:
    group = triton_group(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")

    assert kernel_cache.relocate(tmp_path / "new") == 1
    assert kernel_cache.relocate(tmp_path / "new") == 0, "once is enough"
    here = tmp_path / "new" / group.relative_to(tmp_path / "old")
    assert json.loads(here.read_text()) == {"child_paths": {"k.cubin": str(here.with_name("k.cubin"))}}


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"child_paths": null}'])
def test_kernel_that_triton_cannot_read_is_left_unchanged(text: str, tmp_path: Path) -> None:
    group = triton_group(tmp_path)
    group.write_text(text)

    assert kernel_cache.relocate(tmp_path) == 0
    assert group.read_text() == text


def test_fillings_of_a_moved_folder_are_those_of_its_new_path(tmp_path: Path) -> None:
    kernel_cache.write(tmp_path, (ENTRY,))

    assert kernel_cache.moved(tmp_path) == (replace(ENTRY, key=replace(KEY, folder=str(tmp_path / "triton"))),)
    assert kernel_cache.read(tmp_path) == kernel_cache.moved(tmp_path)


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no kernels\.json"):
        kernel_cache.moved(tmp_path)


def test_caches_of_a_plan_are_all_below_one_folder(tmp_path: Path) -> None:
    environment = plan_in(tmp_path, machine(H200)).environment

    assert {environment[variable].value for variable in KERNEL_CACHES} == {
        str(tmp_path / name) for name in KERNEL_CACHES.values()
    }
