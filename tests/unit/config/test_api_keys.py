"""Keys and what each may use, read from text; no key in any error."""

from __future__ import annotations

import hashlib

import pytest

from gptoss_bento.config.api_keys import Key, KeyLimits, KeysError, digest, listed_keys, read_keys, shared_keys

UNPRINTABLE = "must be of printable ASCII characters without spaces and commas, and not empty"
HASH = hashlib.sha256(b"s3cret").hexdigest()


def problems(text: str) -> list[str]:
    with pytest.raises(KeysError) as caught:
        read_keys(text)
    assert "s3cret" not in str(caught.value)
    return list(caught.value.problems)


@pytest.mark.parametrize("text", ["s3cret", f"sha256:{HASH}", f"sha256:{HASH.upper()}"])
def test_key_may_be_in_plain_or_hashed(text: str) -> None:
    assert read_keys(f"alice: {{key: '{text}'}}") == (Key("alice", (digest("s3cret"),)),)
    assert listed_keys([text]) == (Key("key-1", (digest("s3cret"),), is_listed=True),)


def test_entry_may_have_several_keys_and_every_limit() -> None:
    (key,) = read_keys("""
        alice:
          key: [old, new]
          requests_per_minute: 60
          tokens_per_minute: 100000
          streams: 4
          jobs: 10
          max_tokens: 4096
          reasoning_effort: low
    """)

    assert key.digests == (digest("old"), digest("new"))
    assert key.limits == KeyLimits(
        requests_per_minute=60, tokens_per_minute=100_000, streams=4, jobs=10, max_tokens=4096, reasoning_effort="low"
    )


def test_json_is_good_too() -> None:
    assert [key.name for key in read_keys('{"a": {"key": "x"}, "b": {"key": "y"}}')] == ["a", "b"]


def test_key_is_in_no_representation() -> None:
    key = read_keys("alice: {key: s3cret}")[0]

    assert "s3cret" not in repr(key)
    assert HASH not in repr(key)
    assert digest("s3cret").hex() not in repr(key)


ODD_VALUE = "a value in it is not what YAML takes it for; put keys in quotes"
ODD_VALUES = ["2024-99-99", "0x_", "!!int s3cret", "!!bool s3cret", "!!timestamp s3cret", "[" * 2000 + "]" * 2000]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["it must have one entry a key, `name: {key: …}`, and at least one"]),
        ("s3cret,other", ["it must have one entry a key, `name: {key: …}`, and at least one"]),
        ("alice: s3cret", ["alice: must have `key:` and limits below it"]),
        ("alice: {jobs: 1}", ["alice: key is missing"]),
        ("alice: {key: }", ["alice: key must be a text, in quotes, or a list of texts"]),
        ("alice: {key: 123}", ["alice: key must be a text, in quotes, or a list of texts"]),
        ("alice: {key: []}", ["alice: key must not be an empty list"]),
        ("alice: {key: ''}", [f"alice: key {UNPRINTABLE}"]),
        ("alice: {key: 'a b'}", [f"alice: key {UNPRINTABLE}"]),
        ("alice: {key: 'sha256:12'}", ["alice: key must have 64 hex digits after `sha256:`"]),
        ("alice: {key: s3cret, jobs: 0}", ["alice: jobs must be a whole number of at least 1, got 0"]),
        ("alice: {key: s3cret, jobs: '2'}", ["alice: jobs must be a whole number of at least 1, got '2'"]),
        ("a: {key: a, reasoning_effort: most}", ["a: reasoning_effort must be low, medium or high, got 'most'"]),
        ("alice: {key: a, max_token: 1}", ["alice: max_token is unknown; did you mean max_tokens?"]),
        ("1: {key: a}", ["a name must be of letters, digits, `_`, `.` and `-`, 64 at most (numbers in quotes)"]),
        ("a: {key: s3cret}\nb: {key: s3cret}", ["b: its key is also that of a"]),
        ("a: {key: x}\na: {key: y}", ["a occurs twice in the mapping that begins at line 1"]),
        ("a: {key: x, key: y}", ["key occurs twice in the mapping that begins at line 1"]),
        ("a: {key: [s3cret}", ["it is not YAML (line 1, column 17)"]),
        ("a: {key: *s3cret}", ["it is not YAML (line 1, column 10)"]),
        ("a: {key: \x01}", ["it is not YAML"]),
        *((f"a: {{key: {value}}}", [ODD_VALUE]) for value in ODD_VALUES),
    ],
)  # fmt: skip
def test_entry_that_is_wrong_is_named_without_its_key(text: str, found: list[str]) -> None:
    assert problems(text) == found


def test_key_that_is_misplaced_is_not_shown() -> None:
    assert "known: " in problems("alice: {key: a, s3cret: 1}")[0]
    assert "a name must be" in problems("'s3cret!': {key: a}")[0]


def test_problems_are_reported_together() -> None:
    assert len(problems("a: {jobs: 0}\nb: {key: x, streams: -1}\nc: 3")) == 4


@pytest.mark.parametrize("text", ["", "a b", "ключ", "sha256:12"])
def test_listed_key_that_no_client_could_send_is_refused(text: str) -> None:
    with pytest.raises(KeysError, match=r"^key 2 must"):
        listed_keys(["good", text])


def test_owner_of_a_listed_key_is_the_same_at_each_place() -> None:
    alice, bob = listed_keys(["alice-key", "bob-key"])

    assert [key.owner for key in listed_keys(["bob-key", "alice-key"])] == [bob.owner, alice.owner]
    assert listed_keys([f"sha256:{digest('bob-key').hex()}"])[0].owner == bob.owner
    assert bob.owner != alice.owner
    assert digest("bob-key").hex()[:8] not in bob.owner
    with pytest.raises(KeysError):  # nobody can name a key so
        read_keys(f"'{bob.owner}': {{key: other}}")


def test_owner_of_a_named_key_is_its_name() -> None:
    assert [key.owner for key in read_keys("alice: {key: [old, new]}")] == ["alice"]


def test_names_and_keys_are_unique_over_all_sources() -> None:
    one, two = read_keys("a: {key: x}"), read_keys("a: {key: y}\nb: {key: x}")

    assert shared_keys((*one, *two)) == ["a: there are two entries of this name", "b: its key is also that of a"]
