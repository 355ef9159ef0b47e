"""Our templates, filled in: what comes from a study is escaped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
import markupsafe

from sgdscope.report.page.vega import bundle


def rendered(template: str, **values: Any) -> str:
    """Return a template of this package with its values.

    Args:
        template: the name of its file.
        values: all that it names; what it lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sgdscope.report.page", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def rendered_page(template: str, **values: Any) -> str:
    """Return a page that opens offline: a template that extends the layout, with our style and scripts inside.

    Args:
        template: the name of its file.
        values: all that it names beside them.
    """
    vega = markupsafe.Markup(bundle().replace("</script", "<\\/script"))  # noqa: S704
    return rendered(template, style=_own("page.css"), script=_own("page.js"), bundle=vega, **values)


def rendered_plain(template: str, **values: Any) -> str:
    """Return a page without figures that a script draws: a template that extends the plain layout, with our style.

    Args:
        template: the name of its file.
        values: all that it names beside the style.
    """
    return rendered(template, style=_own("page.css"), **values)


def _own(name: str) -> markupsafe.Markup:
    """Return a file of ours, which stands in the page as it is."""
    return markupsafe.Markup((files("sgdscope.report.page") / name).read_text(encoding="utf-8"))  # noqa: S704
