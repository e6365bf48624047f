"""Bodies that come packed: unpacked in steps, and never beyond their bound."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gptoss_bento.tools.browser.decoding import Body
from gptoss_bento.tools.browser.failures import BrowserError

LIMIT = 100_000
TEXT = b"a page of some length. " * 500


def read(packed: bytes, encoding: str, step: int = 1000) -> bytes:
    body = Body(encoding, LIMIT)
    for at in range(0, len(packed), step):
        body.add(packed[at : at + step])
    return bytes(body.content)


RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
RAW_DEFLATE = RAW.compress(TEXT) + RAW.flush()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "X-GZIP"),
        (gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (RAW_DEFLATE, "deflate"),
    ],
)
@pytest.mark.parametrize("step", [97, 1000, 100_000])
def test_body_is_unpacked_in_any_steps(packed: bytes, encoding: str, step: int) -> None:
    assert read(packed, encoding, step) == TEXT


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [(bytes(LIMIT + 1), ""), (gzip.compress(bytes(10**8)), "gzip"), (zlib.compress(bytes(LIMIT + 1)), "deflate")],
)
def test_body_beyond_its_bound_is_refused_before_it_is_unpacked(packed: bytes, encoding: str) -> None:
    body = Body(encoding, LIMIT)

    with pytest.raises(BrowserError, match="larger than 100,000 bytes"):
        body.add(packed)

    assert len(body.content) <= max(LIMIT + 1, 0 if encoding else len(packed))


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_body_packed_in_another_way_than_asked_is_refused(encoding: str) -> None:
    with pytest.raises(BrowserError, match="was not asked for"):
        Body(encoding, LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_that_is_not_packed_as_it_says_is_refused(encoding: str) -> None:
    with pytest.raises(BrowserError, match="not packed as it says"):
        read(b"\xffthis is not packed", encoding)


def test_body_in_tiny_pieces_is_refused() -> None:
    with pytest.raises(BrowserError, match="too small pieces"):
        read(b"x" * 5000, "", step=1)


def test_body_of_many_gzip_members_ends_with_the_first_ones() -> None:
    assert len(read(gzip.compress(b"x") * 1000, "gzip", 30_000)) < 1000
