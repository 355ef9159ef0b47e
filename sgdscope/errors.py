"""The one exception for what a user can put right, and what a user may have meant by a word with a typo."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A mistake in what was asked for, told in one sentence: what, where, and what would do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to a misspelt one; nothing where none is near.

    >>> did_you_mean("runn", ["run", "plan"]), did_you_mean("frob", ["run", "plan"])
    (' Did you mean run?', '')
    """
    by_letters = {name.lower().lstrip("-"): name for name in known}
    near = get_close_matches(word.lower().lstrip("-"), by_letters, n=1, cutoff=0.7)
    return f" Did you mean {by_letters[near[0]]}?" if near else ""
