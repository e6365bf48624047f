from __future__ import annotations

from collections.abc import Sequence

from gptoss_bento.bench.random_answers import RandomAnswers, Vocabulary, vocabulary

WORDS = {"<|start|>": 90, "assistant": 7, "<|channel|>": 91, "final": 8, "<|message|>": 92, "<|return|>": 93}
HARMONY = Vocabulary(text=(1, 2, 3), turn=(90, 7), header=(91, 8, 92), end=(93,))


class FakeTokenizer:
    """Knows ten pieces, of which some are no text by themselves, and Harmony's tokens if they are wanted."""

    vocab_size = 10
    pieces = ("a", " b", "\ufffd", "ü", "\n", "", "x\ufffd", "assistant", "final", "é")

    def __init__(self, special: Sequence[int] = (90, 91, 92, 93)) -> None:
        self.all_special_ids = special

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [token for word, token in WORDS.items() if word in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.pieces[token] for token in token_ids)


def test_characters_are_whole_and_printable() -> None:
    assert set(vocabulary(FakeTokenizer()).text) == {0, 1, 3, 7, 8, 9}


def test_special_tokens_are_not_drawn() -> None:
    assert set(vocabulary(FakeTokenizer(special=(0, 1, 90, 91, 92, 93))).text) == {3, 7, 8, 9}


def test_harmonys_tokens_are_known_where_they_are_special() -> None:
    found = vocabulary(FakeTokenizer())

    assert (found.turn, found.header, found.end) == ((90, 7), (91, 8, 92), (93,))


def test_tokenizer_of_another_model_has_no_harmony() -> None:
    found = vocabulary(FakeTokenizer(special=()))

    assert (found.turn, found.header, found.end) == ((), (), ())


def test_request_gets_a_token_a_step_once_its_prompt_is_through() -> None:
    answers = RandomAnswers(HARMONY)
    answers.begin("r", [5] * 10)

    assert answers.tokens("r", 6) == []
    assert answers.tokens("r", 9) == []
    for computed in (10, 11, 12):
        (token,) = answers.tokens("r", computed)
        assert token in HARMONY.text


def test_preempted_request_is_computed_again_before_it_continues() -> None:
    answers = RandomAnswers(HARMONY)
    answers.begin("r", [5] * 10)
    assert len([answers.tokens("r", computed) for computed in (10, 11)]) == 2

    answers.begin("r", [5] * 10)

    assert answers.tokens("r", 8) == []
    assert answers.tokens("r", 11) == []
    assert len(answers.tokens("r", 12)) == 1


def test_chat_answer_is_a_whole_message() -> None:
    answers = RandomAnswers(HARMONY)
    answers.begin("chat", [5, 6, 90, 7], max_tokens=6)

    tokens = [answers.tokens("chat", 4 + step)[0] for step in range(6)]

    assert tokens[:3] == [91, 8, 92]
    assert set(tokens[3:5]) <= set(HARMONY.text)
    assert tokens[5] == 93


def test_completion_is_nothing_but_text() -> None:
    answers = RandomAnswers(HARMONY)
    answers.begin("completion", [5, 6], max_tokens=4)

    assert {answers.tokens("completion", 2 + step)[0] for step in range(4)} <= set(HARMONY.text)


def test_request_id_can_be_reused_after_its_end() -> None:
    answers = RandomAnswers(HARMONY)
    answers.begin("r", [5] * 10)
    answers.tokens("r", 10)

    answers.forget(["r", "never there"])
    answers.begin("r", [5] * 3)

    assert len(answers.tokens("r", 3)) == 1


def test_answers_differ_and_are_the_same_in_every_run() -> None:
    def draw() -> list[int]:
        answers = RandomAnswers(Vocabulary(tuple(range(1000))))
        answers.begin("r", [5])
        return [answers.tokens("r", 1 + step)[0] for step in range(20)]

    assert draw() == draw()
    assert len(set(draw())) > 10
