"""The bounds of the browser: time, size and number of what it does for the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one worker's browser. A page that exceeds one is an error that the model reads, not a longer wait."""

    search_s: float = 15.0
    """One request to the search backend."""
    search_bytes: int = 4_000_000
    """An answer of the search backend, unpacked."""
    results: int = 20
    """Results of a search; what the backends give in one request."""
    fetch_s: float = 20.0
    """One page, with its redirects."""
    redirects: int = 5
    page_bytes: int = 5_000_000
    """A page, packed and unpacked."""
    pages: int = 16
    """Pages of a worker that are fetched or read concurrently; further ones wait."""
    extract_s: float = 8.0
    """What the process that reads a page may take; then what it has found so far is the page."""
    extract_memory_mb: int = 768
    """Address space of that process; 5 MB of HTML with a million elements take 400 MB."""
    extractions: int = 4
    """Such processes of a worker, among those pages."""
    page_chars: int = 400_000
    """Text that is kept of a page."""
    view_chars: int = 4_000
    """Text that the model sees without num_lines: about the 1,024 tokens of OpenAI's reference."""
    longest_view_chars: int = 32_000
    """Text that the model sees, whatever num_lines it asks for."""
    cursors: int = 200
    """Pages of a session. The model refers to them by number, so none is dropped."""
