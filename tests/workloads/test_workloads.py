"""The built-in workloads by their names in the package."""

import subprocess
import sys
from importlib import import_module

import pytest

import sgdscope as sg
from sgdscope.workloads import FILES


def test_a_name_is_the_workloads_function_before_and_after_its_file_is_imported():
    for _ in range(2):
        for name in sg.workloads.__all__:
            of_file = getattr(import_module(f"sgdscope.workloads.{FILES.get(name, name)}"), name)
            assert getattr(sg.workloads, name) is of_file
            assert name in dir(sg.workloads)
    assert sg.workloads.digits(hidden=3).record() == sg.workloads.digits(hidden=3).record()
    assert sg.workloads.base is import_module("sgdscope.workloads.base")


def test_another_name_is_none_of_its():
    with pytest.raises(AttributeError, match=r"'sgdscope\.workloads' has no attribute 'digit'"):
        _ = sg.workloads.digit


@pytest.mark.parametrize("used", ["sg.workloads", "sg.studies", "sg.studies.get, dir(sg.workloads)"])
def test_jax_is_not_loaded_for_the_names(used):
    program = f"import sys, sgdscope as sg; {used}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_study_by_its_name():
    study = sg.studies.get("digits", sweep="epochs")
    assert (study.name, len(study.budgets)) == ("digits-epochs", 7)
