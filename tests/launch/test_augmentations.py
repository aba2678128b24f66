"""The page of augmentations: made by its command, it shows every transform of images and is the one in the docs."""

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from canon import plots
from canon.data import transforms
from launch import augmentations

DATA_ONLY = {
    'check_label',
    'keep_fields',
    'make_transforms',
    'one_hot',
    'pad_boxes',
    'pad_proposals',
    'record_placement',
    'rename',
    'standardise',
    'to_float',
    'to_uint8',
}


def test_the_page_is_made_and_is_the_one_in_the_docs(tmp_path, root):
    assert augmentations.main([f'--output={tmp_path / "augmentation"}']) == 0
    page = (tmp_path / 'augmentation.md').read_text()
    assert page == (root / 'docs/augmentation.md').read_text(), 'run python -m launch.augmentations'
    missing = [name for name in transforms.__all__ if name not in DATA_ONLY and f'**{name}**' not in page]
    assert not missing
    for folder in (tmp_path, root / 'docs'):
        pictures = sorted((folder / 'augmentation').glob('*.jpg'))
        assert len(pictures) == 7
        for picture in pictures:
            assert f'(augmentation/{picture.name})' in page
            assert picture.stat().st_size < 300_000
            assert Image.open(picture).convert('L').getextrema() > (0, 0)


def test_scenes_draw_boxes_and_masks_where_they_are():
    image = np.full((20, 30, 3), 100, np.uint8)
    masks = np.zeros((1, 20, 30), bool)
    masks[0, 5:10, 20:28] = True
    example = {'image': image, 'boxes': np.array([[20, 5, 28, 10.0]]), 'masks': masks}
    segmentation = {'image': image[..., :1], 'segmentation': np.where(masks[0], 255, 0)[..., None]}
    figure = plots.draw_annotated_images(
        [example, segmentation, {'image': image / np.float32(255)}], ['a', 'b', 'c'], columns=2
    )
    first, second, third, fourth = figure.axes
    (frame,) = [p for p in first.patches if isinstance(p, Rectangle)]
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (20, 5, 8, 5)
    for axes in (first, second):
        picture, layer = axes.images
        assert tuple(picture.get_extent()) == tuple(layer.get_extent()) == (0, 30, 20, 0)
        np.testing.assert_array_equal(layer.get_array()[..., 3] > 0, masks[0])
    assert [len(axes.images) for axes in (third, fourth)] == [1, 0]
    figure.canvas.draw()
