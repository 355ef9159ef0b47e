"""Make one picture of the talk's figures from finished studies, a row for each sweep.

python docs/make_talk_picture.py PICTURE.png DIR ...
"""

from __future__ import annotations

import sys

import altair as alt

from sgdscope.report.export import talk_figures
from sgdscope.result import read_folders

# Each figure has its own legend.
APART = dict.fromkeys(("color", "fill", "shape", "strokeDash"), "independent")


def main(picture: str, folders: list[str]) -> None:
    """Write the picture: best score, training loss and learning rate against batch size, regimes, and epochs."""
    figures = talk_figures(read_folders(folders))
    kinds = ("best-score", "training-loss", "optimal-learning-rate")
    sweeps = dict.fromkeys(name.removesuffix("-two-regimes") for name in figures if name.endswith("-two-regimes"))
    rows = [alt.hconcat(*(figures[f"{sweep}-{kind}"] for kind in kinds), title=sweep) for sweep in sweeps]
    rows += [figures[f"{sweep}-two-regimes"] for sweep in sweeps if "epochs" in sweep]
    if "score-by-epochs" in figures:
        rows.append(alt.hconcat(figures["score-by-epochs"], figures["rates-by-epochs"]).resolve_scale(**APART))
    alt.vconcat(*rows).resolve_scale(**APART).save(picture, ppi=80)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
