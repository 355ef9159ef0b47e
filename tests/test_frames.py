import sys
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from sgdscope.analysis.tables import Tables
from sgdscope.errors import InputError
from sgdscope.frames import Frame
from sgdscope.testing.simulated import RECORD, Truth, simulate, trial_table

TABLE = Frame({"n": [1, 2], "missing": [1, None], "rate": [0.5, None], "name": ["x", None], "known": [True, None]})


@pytest.fixture
def pandas(monkeypatch):
    """What of pandas is asked: a Series is its values, a DataFrame its columns."""
    module = ModuleType("pandas")
    module.__version__ = "2.2.0"
    module.Series, module.DataFrame = (lambda values: values), dict
    monkeypatch.setitem(sys.modules, "pandas", module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)


@pytest.mark.usefixtures("pandas")
def test_a_table_becomes_one_of_pandas_without_pyarrow():
    found = TABLE.to_pandas()
    assert list(found) == TABLE.columns
    assert found["n"].dtype == np.int64
    for name in ("missing", "rate"):
        assert found[name].dtype == np.float64
        assert np.isnan(found[name]).tolist() == [False, True]
    assert found["name"].tolist() == ["x", None]
    assert found["known"].tolist() == [True, None]


def test_without_pandas_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"^to_pandas: pandas is not installed; run `pip install pandas`, or use the"):
        TABLE.to_pandas()


@pytest.mark.usefixtures("pandas")
def test_options_that_need_pyarrow_say_so():
    with pytest.raises(InputError, match=r"^to_pandas: pyarrow is not installed; run `pip install pyarrow`"):
        TABLE.to_pandas(use_pyarrow_extension_array=True)


@pytest.mark.usefixtures("quick")
def test_every_table_is_such_a_one_and_a_table_of_polars():
    trials = trial_table({"sgd": simulate(np.random.default_rng(0), 4, Truth(spread=0.001, grid=0.5), (4, 16, 64))})
    for name, table in Tables(trials, {RECORD.name: RECORD}, 0.01).all().items():
        assert isinstance(table, Frame), name
        assert isinstance(table, pl.DataFrame)
        assert pl.concat([table, table]).height == 2 * table.height
