"""The form of an upload, in pieces of any size."""

from __future__ import annotations

import pytest

from gptoss_bento.batches.upload_form import UploadForm
from gptoss_bento.http.errors import HttpRefusalError

CONTENT = b"one\r\n--x\r\nnot the end\r\n--boundar\r\n\x00\xff"
FORM = (
    b'--boundary\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="r\xc3\xa9s.jsonl"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + CONTENT + b"\r\n--boundary--\r\n"
)
TYPE = "multipart/form-data; boundary=boundary"


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_form_is_the_same_in_pieces_of_any_size(size: int) -> None:
    form = UploadForm(TYPE)
    content = b"".join(form.feed(FORM[start : start + size]) for start in range(0, len(FORM), size))
    form.finish()

    assert content == CONTENT
    assert (form.filename, form.fields) == ("rés.jsonl", {"purpose": "batch"})


@pytest.mark.parametrize("length", range(0, len(FORM) - 4, 9))
def test_form_that_breaks_off_is_refused(length: int) -> None:
    form = UploadForm(TYPE)
    form.feed(FORM[:length])

    with pytest.raises(HttpRefusalError, match="it has no end"):
        form.finish()


def test_form_with_two_files_is_refused() -> None:
    part = b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'

    with pytest.raises(HttpRefusalError, match="file must be there once"):
        UploadForm(TYPE).feed(part + part)


def test_form_with_a_boundary_that_is_too_long_is_refused() -> None:
    with pytest.raises(HttpRefusalError, match="Boundary length 300 exceeds maximum") as refused:
        UploadForm("multipart/form-data; boundary=" + "x" * 300)

    assert refused.value.status == 400
