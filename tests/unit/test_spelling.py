from __future__ import annotations

from gptoss_bento.spelling import nearest


def test_nearest_of_several() -> None:
    assert nearest("lenght", ["length", "lent", "other"]) == "length"


def test_spelling_has_no_near_name() -> None:
    assert nearest("zzz", ["length"]) is None


def test_spelling_distance_can_be_chosen() -> None:
    assert nearest("h10", ["h1"], 0.7) == "h1"
    assert nearest("h10", ["h1"], 0.9) is None
