"""What the machine has: cores, and a folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder named by SGDSCOPE_CACHE_DIR, else the one for sgdscope in the user's cache."""
    return Path(os.environ.get("SGDSCOPE_CACHE_DIR") or platformdirs.user_cache_path("sgdscope"))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
