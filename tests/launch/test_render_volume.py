"""Pictures of a volume as a command."""

import numpy as np
import pytest

from canon.errors import CanonError
from launch import render_volume


def test_raw_voxels_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / 'v.raw').write_bytes(bytes(range(60)))
    with pytest.raises(CanonError, match='has 60 bytes, and 3x4x6 voxels of uint8 are 72'):
        render_volume.main([str(tmp_path / 'v.raw'), '--shape=3,4,6'])
    calls = []
    monkeypatch.setattr(render_volume, 'draw_volume', lambda *given: calls.append(given) or ({}, 'drawn'))
    options = ['--shape=3x4x5', '--spacing=1,1,2', '--size=8', '--level=0.5', f'--output={tmp_path}']
    render_volume.main([str(tmp_path / 'v.raw'), *options])
    values, half, _, size, _, level, name = calls[0]
    np.testing.assert_allclose(values, np.arange(60).reshape(5, 4, 3).T / 59, rtol=1e-6)
    np.testing.assert_allclose(half, [2 / 8, 3 / 8, 1])
    assert (size, level, name) == (8, 0.5, 'v.raw')
