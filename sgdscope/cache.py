"""Where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder named by SGDSCOPE_CACHE_DIR, else the one for sgdscope in the user's cache."""
    return Path(os.environ.get("SGDSCOPE_CACHE_DIR") or platformdirs.user_cache_path("sgdscope"))
