"""How numbers are written: a true minus, ∞ for what has no bound, a space after the comma of an interval."""

from __future__ import annotations

import math
import re

# A mean of equal floats is off by some 1e-16 of it, and so is what is left of its interval.
ROUNDED = 1e-12
MOST_DECIMALS, SMALL = 6, 1e-3
# In an optimizer's name: the values of a coefficient that is searched. Vega reads it, too.
SEARCHED_VALUES = "=[^:=|]+([|][^:|]+)+"


def number(value: float, form: str = ".2g") -> str:
    """Return a number as it is written everywhere.

    Its exponent keeps its hyphen, so that a rate can be copied to the command line.

    >>> number(0.123), number(-0.17, ".2f"), number(float("-inf")), number(2.2e-21)
    ('0.12', '−0.17', '−∞', '2.2e-21')
    """
    text = f"{value:{form}}".replace("inf", "∞")
    return f"−{text[1:]}" if text.startswith("-") else text


def interval(low: float, high: float, form: str = ".2g") -> str:
    """Return the ends of an interval in brackets.

    >>> interval(-0.0625, float("inf"))
    '[−0.062, ∞]'
    """
    return f"[{number(low, form)}, {number(high, form)}]"


def estimate(value: float, low: float | None = None, high: float | None = None, form: str = "", sign: str = "") -> str:
    """Return a number with its interval: ``value [low, high]``, or alone where there is none.

    It has the decimals that show the first digit of half the interval, and one more where the number has fewer than
    three digits. An interval narrower than the rounding of floats is 0. A small number that takes more than 6 decimals
    has an exponent.

    Args:
        value: The number.
        low: Lower end of its interval.
        high: Upper end.
        form: Format of each number. Default: by the interval.
        sign: ``+`` for a sign before a positive number too.

    >>> estimate(0.97, 0.967, 0.973), estimate(97.53, 97.37, 97.69), estimate(0.09, -0.04, 0.22, sign="+")
    ('0.970 [0.967, 0.973]', '97.5 [97.4, 97.7]', '+0.09 [−0.04, +0.22]')
    >>> estimate(0.94, 0.94, 0.94 + 1e-16), estimate(-1.2e-10, -5.2e-10, 2.8e-10), estimate(0.5, float("-inf"), 9.0)
    ('0.94 [0.94, 0.94]', '−1.2e-10 [−5.2e-10, 2.8e-10]', '0.5 [−∞, 9]')
    >>> estimate(0.9432)
    '0.943'
    """
    if low is None or high is None:
        return number(value, sign + (form or ".3g"))
    if not form:
        half = max(value - low, high - value)
        if not ROUNDED * abs(value) < half < math.inf:
            form = ".3g"
        else:
            first = -math.floor(math.log10(half))
            third = 2 - math.floor(math.log10(abs(value))) if value else first
            decimals = max(0, first, min(first + 1, third))
            form = f"z.{decimals}f" if decimals <= MOST_DECIMALS or abs(value) >= SMALL else ".2g"
    return f"{number(value, sign + form)} {interval(low, high, sign + form)}"


def score(value: float, low: float | None, high: float | None, in_percent: bool, sign: str = "") -> str:
    """Return a score with its interval, or alone where there is none; an accuracy in percent.

    >>> score(0.975, 0.972, 0.978, in_percent=True), score(0.0123, 0.0119, 0.0127, in_percent=False)
    ('97.5 [97.2, 97.8] %', '0.0123 [0.0119, 0.0127]')
    """
    if not in_percent:
        return estimate(value, low, high, sign=sign)
    if low is None or high is None:
        return f"{estimate(100 * value, sign=sign)} %"
    return f"{estimate(100 * value, 100 * low, 100 * high, sign=sign)} %"


def points(difference: float, in_percent: bool) -> str:
    """Return a difference of scores, that of accuracies in percentage points.

    >>> points(0.0039, in_percent=True), points(0.01, in_percent=True), points(0.0039, in_percent=False)
    ('0.39 points', '1 point', '0.0039')
    """
    text = number(100 * difference if in_percent else difference)
    return f"{text} point{'s' * (text != '1')}" if in_percent else text


def optimizer_name(optimizer: str) -> str:
    """Return an optimizer as it is named in sentences: without the values of a coefficient that is searched.

    >>> optimizer_name("gradient_penalty:block=32:strength=0|0.5|2"), optimizer_name("momentum:0.9")
    ('gradient_penalty:block=32:strength', 'momentum:0.9')
    """
    return re.sub(SEARCHED_VALUES, "", optimizer)


def batch_size(value: float) -> str:
    """Return a batch size, or a number of examples, which an interval may put below 1 or beyond all.

    >>> batch_size(63.7), batch_size(0.2), batch_size(float("inf"))
    ('64', '<1', '∞')
    """
    if value < 1:
        return "<1"
    return f"{value:.0f}" if value < 1e6 else "∞"


def exact(number: float) -> str:
    """Write a number as short as can be and so that it is read back the same.

    >>> exact(30.0), exact(0.9), exact(10 / 3)
    ('30', '0.9', '3.3333333333333335')
    """
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def duration(seconds: float) -> str:
    """Say a duration in the two largest units that matter.

    >>> duration(7.4), duration(75), duration(7300)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
