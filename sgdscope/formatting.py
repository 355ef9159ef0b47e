"""How numbers are written: a true minus, ∞ for what has no bound, a space after the comma of an interval."""

from __future__ import annotations

import math

# A mean of equal floats is off by some 1e-16 of it, and so is what is left of its interval.
ROUNDED = 1e-12
MOST_DECIMALS, SMALL = 6, 1e-3


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


def with_half_width(mean: float, half: float, sign: str = "") -> str:
    """Return a mean and its interval with enough decimals for a first digit of the interval, at least 3.

    An interval narrower than the rounding of floats is 0. A small mean that takes more than 6 decimals is written with
    an exponent.

    >>> with_half_width(0.97, 0.003), with_half_width(-0.01, 0.0004, sign="+")
    ('0.970 ±0.003', '−0.0100 ±0.0004')
    >>> with_half_width(0.94, 1e-16), with_half_width(-1.2e-10, 4e-10)
    ('0.940 ±0.000', '−1.2e-10 ±4e-10')
    """
    half = 0.0 if half <= ROUNDED * abs(mean) else half
    decimals = 3 if not 0 < half < math.inf else max(3, -math.floor(math.log10(half)))
    if decimals > MOST_DECIMALS and abs(mean) < SMALL:
        digits = max(1, math.floor(math.log10(max(abs(mean), half) / half)) + 1)
        return f"{number(mean, f'{sign}.{digits}e')} ±{number(half, '.0e')}"
    return f"{number(mean, f'{sign}z.{decimals}f')} ±{number(half, f'.{decimals}f')}"


def examples(value: float) -> str:
    """Return a number of examples, which an interval may put below any or beyond all.

    >>> examples(63.7), examples(0.2), examples(float("inf"))
    ('64', 'below 1', 'beyond any')
    """
    if value < 1:
        return "below 1"
    return f"{value:.0f}" if value < 1e6 else "beyond any"


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
