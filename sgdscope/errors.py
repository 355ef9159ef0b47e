"""The one exception for what a user can put right: its text is a sentence, and the command line exits with 2."""


class InputError(ValueError):
    """A mistake in what was asked for, told in one sentence: what, where, and what would do."""
