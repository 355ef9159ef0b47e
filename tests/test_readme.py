import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_its_python_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert len(names["result"].optima) == 2 * 2 * 2
    assert (tmp_path / "page.html").exists()


def test_its_commands_exist():
    from sgdscope import cli

    used = set(re.findall(r"^sgdscope (\w+)", README, re.MULTILINE))
    assert used == {
        "list",
        "plan",
        "run",
        "status",
        "report",
        "export",
        "claims",
        "figures",
        "advise",
        "analyze",
        "data",
    }
    assert all(hasattr(cli, name.capitalize()) for name in used)


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
