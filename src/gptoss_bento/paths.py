"""Where our own files are: in a checkout, in a Bento and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent

ROOT = PACKAGE.parents[1]
"""The repository, or a Bento's source: where service.py, configs/ and requirements/ are. A wheel has none of them."""
