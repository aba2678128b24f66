"""The script of `docs/tracking.md`, which needs no files."""


def test_the_script_of_the_page_runs(root, capsys):
    script = (root / 'docs/tracking.md').read_text().partition('```python\n')[2].partition('```')[0]
    exec(compile(script, 'docs/tracking.md', 'exec'), {})
    assert 0.6 < float(capsys.readouterr().out) < 0.8
