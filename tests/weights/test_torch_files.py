"""Files of torch are read without torch: both of its formats, views and types; objects and damage are refused."""

from pathlib import Path

import numpy as np
import pytest

from canon import weights
from canon.errors import CanonError
from canon.weights.torch_files import load_torch_file

FOLDER = Path(__file__).parent / 'golden'


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torch', None)  # importing it fails, installed or not


@pytest.mark.parametrize('name', ['zip', 'legacy'])
def test_tensors_of_both_formats(name):
    tensors = weights.read(FOLDER / f'{name}.pth')
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    expected = {
        'weight': base,
        'transposed': base[1].T,
        'half': np.array([1.5, -2], np.float32),
        'bfloat': np.array([1, -0.5], np.float32),
        'count': np.array(7),
        'parameter': np.array([[0.25]], np.float32),
        'empty': np.zeros((0, 3), np.float32),
    }
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(tensors[key], value)
        assert tensors[key].dtype == value.dtype, key
    content = load_torch_file(FOLDER / f'{name}.pth')
    assert (content['epoch'], content['args']) == (3, {'name': 'x', 'rates': [0.1, 0.2]})


def test_objects_are_refused_before_they_are_made():
    with pytest.raises(CanonError, match=r'holds torch\.nn\.modules\.linear\.Linear, which is neither a tensor nor'):
        weights.read(FOLDER / 'module.pth')


@pytest.mark.parametrize('name', ['zip', 'legacy'])
def test_damaged_files_are_one_line(name, tmp_path):
    content = (FOLDER / f'{name}.pth').read_bytes()
    for part in (content[: len(content) // 2], content[:10], b'', b'not a file of torch at all', content[:-4]):
        (tmp_path / 'x.pth').write_bytes(part)
        with pytest.raises(CanonError, match=r'x\.pth cannot be read as a file of torch'):
            weights.read(tmp_path / 'x.pth')
