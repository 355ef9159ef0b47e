"""Charts that a notebook draws without a network: the scripts that draw them are part of what they show."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

import altair as alt

P = ParamSpec("P")
Chart = TypeVar("Chart", bound=alt.TopLevelMixin)


class _Offline(alt.TopLevelMixin):
    """Shows itself with Vega's scripts, unless the user chose another of Altair's renderers."""

    def _repr_mimebundle_(self, *include: Any, **exclude: Any) -> Any:
        if alt.renderers.active != "default":  # the user's own choice
            return super()._repr_mimebundle_(*include, **exclude)
        return {"text/html": self.to_html(inline=True, fullhtml=False)}


@cache
def _offline(kind: Any) -> type:
    return type(kind.__name__, (_Offline, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def offline(draw: Callable[P, Chart]) -> Callable[P, Chart]:
    """Make a function that returns a chart return it as one that a notebook shows without a network."""

    @wraps(draw)
    def drawn(*given: P.args, **named: P.kwargs) -> Chart:
        chart = draw(*given, **named)
        object.__setattr__(
            chart, "__class__", _offline(cast(Any, type(chart)))
        )  # Altair takes other assignments for its own
        return chart

    return drawn
