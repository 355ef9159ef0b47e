"""Our templates, filled in: what comes from a study is escaped."""

from __future__ import annotations

from typing import Any

import jinja2


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
