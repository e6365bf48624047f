"""The multipart form of an upload, parsed as it comes: the file's bytes are passed on, never held. Pure."""

from __future__ import annotations

from http import HTTPStatus

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.strict_json import shown

PURPOSE, FILE = "purpose", "file"
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_LONGEST_FIELD = 1024  # bytes


class UploadForm:
    """One form. Feed it, then read `filename` and `fields`.

    Args:
        content_type: the request's header, which has the boundary.

    Raises:
        HttpRefusalError: 400, it is no multipart form.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            message = f"Content-Type must be multipart/form-data with a boundary, got {shown(content_type)}."
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message)
        self.filename: str | None = None
        """What the client calls the file; None: it has sent none yet."""
        self.fields: dict[str, str] = {}
        self._name = self._disposition = self._header = b""
        self._value = bytearray()
        self._is_file = self._has_ended = False
        self._pieces: list[bytes] = []
        self._parser = self._made_parser(options[b"boundary"])

    def _made_parser(self, boundary: bytes) -> MultipartParser:
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_header,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:  # a boundary that is too long
            raise _malformed(str(error)) from None

    def feed(self, chunk: bytes) -> bytes:
        """Parses a piece of the body. Returns what it has of the file.

        Raises:
            HttpRefusalError: 400, it is no such form, or has a field that does not exist.
        """
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(str(error)) from None
        return b"".join(self._pieces)

    def finish(self) -> None:
        """The body has ended.

        Raises:
            HttpRefusalError: 400, it broke off, or has no file.
        """
        if not self._has_ended:
            raise _malformed("it has no end")
        if self.filename is None:
            raise _refused(FILE, "file is missing: the form has no part of this name with a filename.")

    def _begin_part(self) -> None:
        self._header = self._disposition = b""
        self._value = bytearray()

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header = b""
        self._value = bytearray()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"")
        name = self._name.decode(errors="replace")
        self._is_file = name == FILE
        if name not in (FILE, PURPOSE, ANCHOR, SECONDS):
            raise _refused(name, f"The form has an unknown field {shown(name)}.")
        if name in self.fields or (self._is_file and self.filename is not None):
            raise _refused(name, f"{name} must be there once.")
        if self._is_file:
            self.filename = options.get(b"filename", b"").decode(errors="replace") or "file"

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            name = self._name.decode()
            raise _refused(name, f"{name} may have {_LONGEST_FIELD} bytes.")

    def _end_part(self) -> None:
        if not self._is_file:
            self.fields[self._name.decode()] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self._has_ended = True


def _refused(param: str, message: str) -> HttpRefusalError:
    return HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param=param)


def _malformed(reason: str) -> HttpRefusalError:
    return HttpRefusalError(HTTPStatus.BAD_REQUEST, f"The body must be a multipart form: {reason}.")
