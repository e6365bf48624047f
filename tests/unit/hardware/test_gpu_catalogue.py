from __future__ import annotations

from importlib import import_module
from typing import get_args

import pytest

from gptoss_bento.hardware.gpu_catalogue import families, family_of, known_cards, recognised


# One row a card: what its driver calls it, and what must be known of it.
@pytest.mark.parametrize(
    ("product_name", "key", "family", "gib"),
    [
        ("Tesla V100-SXM2-16GB", "v100", "volta", 16),
        ("Tesla V100-SXM2-32GB", "v100-32", "volta", 32),
        ("Tesla T4", "t4", "turing", 15),
        ("NVIDIA A100-SXM4-40GB", "a100-40", "ampere", 40),
        ("NVIDIA A100-PCIE-40GB", "a100-40", "ampere", 40),
        ("NVIDIA A100-SXM4-80GB", "a100-80", "ampere", 80),
        ("NVIDIA A100 80GB PCIe", "a100-80", "ampere", 80),
        ("NVIDIA A30", "a30", "ampere", 24),
        ("NVIDIA A10", "a10", "ampere", 22),
        ("NVIDIA A10G", "a10g", "ampere", 22),
        ("NVIDIA A40", "a40", "ampere", 45),
        ("NVIDIA RTX A4000", "a4000", "ampere", 16),
        ("NVIDIA RTX A5000", "a5000", "ampere", 24),
        ("NVIDIA RTX A6000", "a6000", "ampere", 48),
        ("NVIDIA GeForce RTX 3090", "rtx3090", "ampere", 24),
        ("NVIDIA L4", "l4", "ada", 22),
        ("NVIDIA L40", "l40", "ada", 45),
        ("NVIDIA L40S", "l40s", "ada", 45),
        ("NVIDIA GeForce RTX 4080", "rtx4080", "ada", 16),
        ("NVIDIA GeForce RTX 4090", "rtx4090", "ada", 24),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada", "ada", 48),
        ("NVIDIA H100 80GB HBM3", "h100", "hopper", 80),
        ("NVIDIA H100 PCIe", "h100", "hopper", 80),
        ("NVIDIA H100 NVL", "h100-nvl", "hopper", 94),
        ("NVIDIA H200", "h200", "hopper", 140),
        ("NVIDIA GH200 480GB", "gh200", "hopper", 96),
        ("NVIDIA B200", "b200", "blackwell", 179),
        ("NVIDIA GB200", "gb200", "blackwell", 185),
        ("NVIDIA B300 SXM6 AC", "b300", "blackwell", 269),
        ("NVIDIA GB300", "gb300", "blackwell", 278),
        ("NVIDIA GeForce RTX 5080", "rtx5080", "blackwell-rtx", 16),
        ("NVIDIA GeForce RTX 5090", "rtx5090", "blackwell-rtx", 32),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000", "blackwell-rtx", 96),
        ("AMD Instinct MI300X", "mi300x", "cdna3", 192),
        ("AMD Instinct MI325X OAM", "mi325x", "cdna3", 256),
        ("AMD Instinct MI355X", "mi355x", "cdna4", 288),
    ],
)
def test_card_is_recognised_by_what_its_driver_calls_it(product_name: str, key: str, family: str, gib: int) -> None:
    card = known_cards()[key]

    assert recognised(product_name) == key
    assert family_of(card.architecture) == family
    assert card.memory_mib / 1024 == pytest.approx(gib, abs=0.6)


@pytest.mark.parametrize("product_name", ["NVIDIA GeForce GTX 1080", "Radeon", "", "NVIDIA L400"])
def test_card_that_is_unknown_is_not_taken_for_a_known_one(product_name: str) -> None:
    assert recognised(product_name) is None


@pytest.mark.parametrize("key", known_cards())
def test_cards_have_a_family_and_names_that_lead_back_to_them(key: str) -> None:
    card = known_cards()[key]

    assert family_of(card.architecture) in families()
    assert {recognised(name) for name in card.names} == {key}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's, at its first import
def test_names_for_bentocloud_are_those_that_bentoml_accepts() -> None:
    accepted = get_args(import_module("_bentoml_sdk.service.config").GpuLiteralType)
    used = {card.bentocloud for card in known_cards().values() if card.bentocloud}

    assert used <= set(accepted)
    assert {"nvidia-l4", "nvidia-h100-80gb", "nvidia-h200-141gb", "amd-mi300x"} <= used


def test_unknown_architecture_has_no_family() -> None:
    assert family_of("sm_999") == family_of("amd") == ""
