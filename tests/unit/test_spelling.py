from __future__ import annotations

from gptoss_bento.spelling import nearest


def test_the_nearest_of_several() -> None:
    assert nearest("lenght", ["length", "lent", "other"]) == "length"


def test_nothing_is_near() -> None:
    assert nearest("zzz", ["length"]) is None


def test_how_near_can_be_chosen() -> None:
    assert nearest("h10", ["h1"], 0.7) == "h1"
    assert nearest("h10", ["h1"], 0.9) is None
