import vl_convert

from sgdscope.report.page.vega import SNIPPET, bundle


def test_the_script_is_made_once_and_kept(tmp_path, monkeypatch):
    made = vl_convert.javascript_bundle(SNIPPET)
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    assert bundle() == made
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.read_text(encoding="utf-8") == made
    monkeypatch.setattr(vl_convert, "javascript_bundle", None)
    assert bundle() == made


def test_without_a_folder_to_keep_it_in_it_is_made_anew(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(tmp_path / "file"))
    assert "vegaEmbed" in bundle()
