"""The script that draws a page's figures: Vega, Vega-Lite and the function that embeds them, as one file."""

from __future__ import annotations

import contextlib
from importlib.metadata import version

import vl_convert

from sgdscope import atomic
from sgdscope.system import cache_folder

# Of the bundle, the page needs one function.
SNIPPET = "window.vegaEmbed = vegaEmbed;"


def bundle() -> str:
    """Return the script; made once for each version of vl-convert, since making it takes two seconds."""
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    made: str = vl_convert.javascript_bundle(SNIPPET)
    with contextlib.suppress(OSError):  # without a writable folder it is made anew
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace(kept, made.encode())
    return made
