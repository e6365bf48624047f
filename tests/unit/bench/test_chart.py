from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gptoss_bento.bench.chart import svg
from tests.unit.bench.measured import OURS, SERVE, comparison, figures

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{NAMESPACE}text")]  # noqa: S314


def points(picture: str) -> list[str]:
    """What the points say when one points at them."""
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{NAMESPACE}title")][1:]  # noqa: S314


def test_axes_have_names_and_units_and_servers_a_legend() -> None:
    found = texts(svg(comparison()))

    assert found[:2] == [OURS, SERVE]
    assert {"output tokens/s", "time to first token p50, ms (log)", "streams at a time"} <= set(found)
    assert "Output tokens/s, 128 tokens in, 256 out" in found
    assert {"1", "64", "0", "20,000"} <= set(found)


def test_points_are_medians_over_the_rounds() -> None:
    assert points(svg(comparison())) == [
        *("gptoss-bento, 1 streams: 299.5", "gptoss-bento, 64 streams: 19,168.0"),
        *("vllm serve, 1 streams: 150.0", "vllm serve, 64 streams: 9,600.0"),
        *("gptoss-bento, 1 streams: 1.0", "gptoss-bento, 64 streams: 64.0"),
        *("vllm serve, 1 streams: 1.0", "vllm serve, 64 streams: 64.0"),
    ]


def test_rows_are_one_for_each_pair_of_lengths() -> None:
    longer = replace(figures(streams=512), input_tokens=1024, output_tokens=1024)

    found = texts(svg(replace(comparison(), loads=(*comparison().loads, longer))))

    assert [text for text in found if "tokens in" in text] == [
        *("Output tokens/s, 128 tokens in, 256 out", "First token p50, 128 tokens in, 256 out"),
        *("Output tokens/s, 1024 tokens in, 1024 out", "First token p50, 1024 tokens in, 1024 out"),
    ]


def test_points_are_within_the_plot() -> None:
    places = re.findall(r'class="m\d" transform="translate\(([\d.-]+),([\d.-]+)\)"', svg(comparison()))

    assert len(places) == 2 + 8
    assert all(0 <= float(x) <= 440 and 0 <= float(y) <= 260 for x, y in places)


def test_colours_follow_the_scheme_of_the_reader() -> None:
    assert "@media (prefers-color-scheme:dark)" in svg(comparison())


def test_names_cannot_break_the_picture() -> None:
    loads = (figures("<b>&"),)

    assert texts(svg(replace(comparison(), servers=("<b>&",), loads=loads)))[0] == "<b>&"


@pytest.mark.parametrize("rate", [0.5, 7.0, 99.9, 24_431.0, 1e6])
def test_axis_fits_values_of_any_size(rate: float) -> None:
    found = texts(svg(replace(comparison(), loads=(figures(OURS, rate=rate, ttft=rate),))))

    axis = [float(text.replace(",", "")) for text in found if re.fullmatch(r"[\d,.e+-]+", text)]
    assert max(axis) >= rate


def test_server_without_an_answer_is_left_out() -> None:
    assert points(svg(replace(comparison(), loads=(figures(SERVE, rate=0, failed=3), figures(OURS))))) == [
        "gptoss-bento, 8 streams: 100.0",
        "gptoss-bento, 8 streams: 20.0",
    ]
