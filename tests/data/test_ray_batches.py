"""Batches of rays: functions of seed and step, whose colours are those of the views' pixels."""

import numpy as np
import pytest

from canon.data.scenes import views as sources
from canon.data.scenes.ray_batches import sample_rays


@pytest.fixture(scope='module')
def views():
    return sources.load_views('traced', 'train', size=16, views=4)


def test_a_batch_is_a_function_of_seed_and_step_and_shows_the_views_pixels(views):
    a, b, other = (sample_rays(views, 0, step, 50) for step in (3, 3, 4))
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])
    assert (a['pixel'] != other['pixel']).any()
    for pose, at, colour in zip(a['pose'], a['pixel'], a['colour'], strict=True):
        view = next(i for i, known in enumerate(views.poses) if (known[:3] == pose).all())
        np.testing.assert_array_equal(colour, views.images[view, int(at[1] - 0.5), int(at[0] - 0.5)])
    middle = sample_rays(views, 0, 0, 200, crop_steps=1)['pixel']
    assert (middle > 4).all()
    assert (middle < 12).all()
    poses = sample_rays(views, 0, 0, 200, single_view=True)['pose']
    assert (poses == poses[0]).all()
    poses = [sample_rays(views, 0, i, 2, single_view=True)['pose'][0] for i in range(30)]
    assert len(np.unique(poses, axis=0)) == 4
