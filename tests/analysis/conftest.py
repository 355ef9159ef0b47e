import pytest

from sgdscope.analysis import statistics


@pytest.fixture
def quick(monkeypatch):
    """Fewer draws and a coarser grid of knees: finer still than what decides whether an interval covers."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    monkeypatch.setattr("sgdscope.analysis.fits.KNEES_PER_OCTAVE", 5)
