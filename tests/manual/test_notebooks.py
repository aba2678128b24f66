"""The notebooks run without a browser, at tiny sizes, and are committed without outputs."""

import json

import pytest

SIZES = {
    'optimizers': 'STEPS = 3\nRATES = 2',
    'inside_a_classifier': 'STEPS = 1\nBATCH = 8',
    'nerf': 'STEPS = 1\nSIZE = 8\nVIEWS = 8\nRAYS = 8\nCOARSE, FINE = 4, 4\nWIDTH = 8',
}


def test_they_are_small_and_have_no_outputs(root):
    files = sorted((root / 'docs/notebooks').glob('*.ipynb'))
    assert {file.stem for file in files} == set(SIZES)
    for file in files:
        assert file.stat().st_size < 100_000
        cells = json.loads(file.read_text())['cells']
        assert not any(cell.get('outputs') or cell.get('execution_count') for cell in cells)
        parameters = [cell for cell in cells if 'parameters' in cell['metadata'].get('tags', ())]
        # The sizes of the test are of the same constants.
        (cell,) = parameters
        names = [line.partition(' = ')[0] for line in ''.join(cell['source']).splitlines()]
        assert names == [line.partition(' = ')[0] for line in SIZES[file.stem].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize('name', SIZES)
def test_it_runs(name, root, tmp_path, monkeypatch):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    from tests.quick import XLA_FLAGS

    monkeypatch.setenv('XLA_FLAGS', XLA_FLAGS)  # what is tested are the cells, not the compiler
    monkeypatch.setenv('PYTHONPATH', str(root / 'lib'))
    book = nbformat.read(root / f'docs/notebooks/{name}.ipynb', as_version=4)
    (cell,) = (cell for cell in book.cells if 'parameters' in cell.metadata.get('tags', ()))
    cell.source = SIZES[name]
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name='python3', resources={'metadata': {'path': tmp_path}}
    )
    client.execute()
    pictures = [
        output for cell in book.cells for output in cell.get('outputs', ()) if 'image/png' in output.get('data', {})
    ]
    assert len(pictures) >= 2, 'the figures are shown'
