"""Rulesets of Landlock by the version of the kernel's interface."""

from __future__ import annotations

import pytest

from gptoss_bento.tools.python.landlock import handled_files, ruleset


@pytest.mark.parametrize(
    ("abi", "rights"), [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (9, 0xFFFF)]
)
def test_rights_are_all_that_a_version_knows(abi: int, rights: int) -> None:
    assert handled_files(abi) == rights


@pytest.mark.parametrize(("abi", "size"), [(1, 8), (3, 8), (4, 16), (5, 16), (6, 24), (9, 24)])
def test_attributes_are_as_long_as_a_version_knows(abi: int, size: int) -> None:
    assert len(ruleset(abi)) == size
