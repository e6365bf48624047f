from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_bento.artifacts import kernel_archive, kernel_cache
from gptoss_bento.errors import ArtifactError, ConfigurationError
from tests.unit.artifacts.test_kernel_cache import triton_group
from tests.unit.planning.test_kernel_key import ENTRY, KEY


def filled(folder: Path) -> Path:
    triton_group(folder)
    kernel_cache.write(folder, (replace(ENTRY, key=replace(KEY, folder=str(folder / "triton"))),))
    return folder


@pytest.mark.parametrize("name", ["k.tar.gz", "k.tgz", "k.tar"])
def test_archive_moves_kernels_to_another_folder(name: str, tmp_path: Path) -> None:
    size = kernel_archive.pack(filled(tmp_path / "here"), tmp_path / name)

    (entry,) = kernel_archive.unpack(tmp_path / name, tmp_path / "a" / "there")

    there = tmp_path / "a" / "there" / "triton"
    assert entry.key.folder == str(there)
    assert json.loads((there / "hash" / "__grp__k.json").read_text())["child_paths"]["k.cubin"].startswith(str(there))
    assert (there / "hash" / "k.cubin").read_bytes() == b"code"
    assert size == (tmp_path / name).stat().st_size
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_archive_keeps_times_and_no_owner(tmp_path: Path) -> None:
    file = filled(tmp_path / "here") / "triton" / "hash" / "k.cubin"
    os.utime(file, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    kernel_archive.pack(tmp_path / "here", tmp_path / "k.tar.gz")

    with tarfile.open(tmp_path / "k.tar.gz") as archive:
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}
    kernel_archive.unpack(tmp_path / "k.tar.gz", tmp_path / "there")
    kept = (tmp_path / "there" / "triton" / "hash" / "k.cubin").stat().st_mtime
    assert kept == pytest.approx(1_700_000_000.123456, abs=1e-3)


def test_archive_adds_to_what_a_folder_was_filled_for(tmp_path: Path) -> None:
    kernel_archive.pack(filled(tmp_path / "here"), tmp_path / "k.tar")
    other = replace(ENTRY, key=replace(KEY, card="NVIDIA L4"))
    (tmp_path / "there").mkdir()
    kernel_cache.write(tmp_path / "there", (other,))

    kernel_archive.unpack(tmp_path / "k.tar", tmp_path / "there")

    assert [entry.key.card for entry in kernel_cache.read(tmp_path / "there")] == ["NVIDIA L4", "NVIDIA H200"]


@pytest.mark.parametrize("name", ["k.zip", "k.tar.zst", "k"])
def test_archive_of_an_unknown_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"must end in \.tar\.gz, \.tgz, \.tar\."):
        kernel_archive.check_name(tmp_path / name, tmp_path / "kernels")


def test_archive_in_the_folder_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be inside"):
        kernel_archive.pack(filled(tmp_path / "kernels"), tmp_path / "kernels" / "k.tar")


def test_archive_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        kernel_archive.pack(tmp_path / "missing", tmp_path / "k.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_archive_of_an_invalid_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k.tar.gz").write_text("no archive")

    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        kernel_archive.unpack(tmp_path / "k.tar.gz", tmp_path / "there")


def test_archive_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "k.tar", "w") as archive:
        for name in ("../outside", "kernels.json"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))

    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        kernel_archive.unpack(tmp_path / "k.tar", tmp_path / "there")
    assert not (tmp_path / "outside").exists()


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    kernel_archive.pack(tmp_path / "here", tmp_path / "k.tar")

    with pytest.raises(ArtifactError, match=r"has no kernels\.json"):
        kernel_archive.unpack(tmp_path / "k.tar", tmp_path / "there")


def test_archive_of_something_else_leaves_a_filled_folder_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path / "there")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "other").touch()
    kernel_archive.pack(tmp_path / "here", tmp_path / "k.tar")

    with pytest.raises(ArtifactError, match=r"k\.tar has no kernels\.json"):
        kernel_archive.unpack(tmp_path / "k.tar", tmp_path / "there")

    assert not (tmp_path / "there" / "other").exists()
    assert len(kernel_cache.read(tmp_path / "there")) == 1


def test_manifest_of_an_archive_comes_after_all_its_kernels(tmp_path: Path) -> None:
    """Or it would speak of kernels for which a disk had no room."""
    kernel_archive.pack(filled(tmp_path / "here"), tmp_path / "k.tar")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "triton").touch()

    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        kernel_archive.unpack(tmp_path / "k.tar", tmp_path / "there")

    assert kernel_cache.read(tmp_path / "there") == ()
