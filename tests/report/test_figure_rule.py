"""A figure's anchor is the name of its file, and its table's name that of the file that makes the table."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from sgdscope.analysis.tables import COLUMNS
from sgdscope.report import figures

MODULES = (*figures.OF_ONE_BUDGET, *figures.OF_SEVERAL_BUDGETS)


def test_every_figure_of_a_page_is_made_by_the_file_that_has_the_name_of_its_anchor(simulated_page, study_tables):
    html = simulated_page.read_text()
    anchors = {re.sub(r"-\d+$", "", anchor) for anchor in re.findall(r'<figure id="([^"]+)"', html)}
    drawn = [figure for part in study_tables.parts for figure in figures.figures_of(part)]
    drawn += figures.figures_against_epochs(study_tables, "simulated")
    assert anchors == {figure.name for figure in drawn}
    assert len(anchors) == len(MODULES)
    for figure in drawn:
        module = import_module(f"sgdscope.report.figures.{figure.name.replace('-', '_')}")
        assert module in MODULES
        assert figure.table in COLUMNS
        import_module(f"sgdscope.analysis.{figure.table}")
        assert f'href="#table-{figure.table}"' in html


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".")[-1])
def test_the_file_of_a_figure_has_its_words_and_its_chart(module):
    functions = [
        node for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert {"figure", "chart"} <= {function.name for function in functions}
    (made,) = (function for function in functions if function.name == "figure")
    texts = [node.value for node in ast.walk(made) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert module.__name__.rsplit(".")[-1].replace("_", "-") in texts
