import pytest

collect_ignore = ["networks.py"]  # which needs PyTorch


@pytest.fixture(scope="session")
def workloads():
    """The workload of each network, with dropout and without it, made once."""
    from networks import workload_of

    made = {}

    def of(name, dropout=0.0):
        if (name, dropout) not in made:
            made[name, dropout] = workload_of(name, dropout)
        return made[name, dropout]

    return of
