"""Draws every augmentation, with boxes and masks that move along, and writes the page that shows them.

    python -m launch.augmentations [--output docs/augmentation]

Writes OUTPUT.md and OUTPUT/*.jpg from scikit-learn's two photographs, the same on every run.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from canon import plots
from canon.data import Key, transforms
from canon.data.images import geometry
from canon.data.pipeline import chain
from canon.errors import CanonError
from launch import tools

# Sheet: (heading, photograph, ((transform, arguments), ...)). p=1.0 where a picture should show the change for certain.
SHEETS = {
    'geometric': (
        'Geometric transforms',
        'flowers',
        (
            ('resize', dict(size=(200, 200))),
            ('pad', dict(size=(320, 320), value=128)),
            ('center_crop', dict(size=200)),
            ('random_crop', dict(size=200)),
            ('random_flip', dict(p=1.0)),
            ('random_shift', dict(pixels=80, value=128)),
            ('resize_short', dict(size=128)),
            ('scale_jitter', dict(size=160, low=160, high=240)),
            ('random_resized_crop', dict(size=224)),
            ('random_rotation', dict(degrees=45, fill=128)),
            ('random_scale', dict(low=0.5, high=1.5, fill=128)),
            ('random_translate', dict(share=0.3, fill=128)),
            ('random_affine', dict(degrees=20, translate=0.1, scale=(0.8, 1.2), shear=0.3, fill=128)),
            ('random_perspective', dict(p=1.0, fill=128)),
            ('text_distort', dict()),
            ('text_stretch', dict()),
            ('text_perspective', dict()),
            ('random_slant', dict(fill=128)),
            ('fit_line', dict(size=(160, 320))),
        ),
    ),
    'detection': (
        'Transforms of detectors',
        'flowers',
        (
            ('letterbox', dict(size=(320, 320))),
            ('resize_short', dict(size=200, longest=240)),
            ('expand', dict(limit=4.0, p=1.0)),
            ('min_iou_crop', dict(overlaps=(0.3, 0.5, 0.7))),
            ('ssd_photometric', dict(p=1.0)),
            ('yolo_jitter', dict(size=(224, 224))),
            ('random_hsv', dict()),
        ),
    ),
    'colours': (
        'Photometric transforms',
        'pagoda',
        (
            ('pca_noise', dict(std=0.1)),
            ('pca_noise', dict(std=0.5)),
            ('colour_shift', dict(amount=40)),
            ('colour_jitter', dict()),
            ('colour_jitter', dict(hue=0.3)),
            ('random_grey', dict(p=1.0)),
            ('random_blur', dict(sigma=(2.0, 4.0), p=1.0)),
            ('cutout', dict(size=80, value=128)),
        ),
    ),
    'rand_augment': (
        'The fourteen operations of RandAugment at magnitude 9, and two drawn at random',
        'flowers',
        (
            *(
                ('rand_augment', dict(count=1, magnitude=9, operations=(name,)))
                for name in transforms.randaugment.OPERATIONS
            ),
            ('rand_augment', dict(count=2, magnitude=9)),
        ),
    ),
}
# What SSD and YOLO do to each example, in this order.
RECIPES = {
    'SSD': dict(
        chain=('ssd_photometric', 'expand', 'min_iou_crop', 'resize', 'random_flip'),
        resize=dict(size=(300, 300)),
    ),
    'YOLO': dict(
        chain=('yolo_jitter', 'random_hsv', 'random_flip'),
        yolo_jitter=dict(size=(448, 448)),
    ),
}
VISIT = 5  # the visit (epoch) that is shown
PREFACE = """# Augmentation on the host

Made by `python -m launch.augmentations`. A config names transforms in a chain,

```python
transforms = dict(chain=('random_resized_crop', 'random_flip'), random_resized_crop=dict(size=224))
```

Each transform maps uint8 to uint8, one byte per value, and its random numbers are a function of (seed, visit, example):
neither threads nor hosts nor the rest of the batch change them.

Boxes (`boxes`, [K, 4] of x0, y0, x1, y1 in pixels), one mask per box (`masks`, [K, H, W]) and a segmentation
(`segmentation`, [H, W]) move along if an example has them; `along=dict(boxes='gt', per_box=('gt_class',))` gives other
names. Boxes are clipped to the image, and those outside it are dropped with the fields that belong to them (`labels`,
`difficult`, `crowd`, `area`); `pad_boxes` pads the rest for a batch. A box that is rotated twice grows twice, so
combine rotations in one `random_affine`. A segmentation is resampled by the nearest pixel, and what enters is 255.

`placement`, (scale_x, scale_y, shift_x, shift_y) from pixels of the original image to those of the network's canvas, is
composed by `resize`, `resize_short`, `pad`, `center_crop` and `letterbox` for examples with boxes or an
`original_size`."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('augmentations', __doc__)
    parser.add_argument('--output', type=Path, default=Path('docs/augmentation'), metavar='STEM')
    folder = parser.parse_args(argv).output
    examples = {'flowers': flowers(), 'pagoda': pagoda()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, example, links) in SHEETS.items():
            save(draw_sheet(examples[example], links), folder / f'{name}.jpg')
        save(draw_ten_crop(examples['pagoda']), folder / 'ten_crop.jpg')
        save(draw_mixup(examples), folder / 'mixup.jpg')
        save(draw_recipes(examples['flowers']), folder / 'recipes.jpg')
        folder.with_name(folder.name + '.md').write_text(render_page(folder.name))
    except OSError as error:
        raise CanonError(f'{folder} cannot be written: {error.strerror}') from error
    print(f'{folder}.md, {folder}/: {len(SHEETS) + 3} pictures')
    return 0


# --- examples ----------------------------------------------------------------------------------------------------


def flowers() -> dict[str, Any]:
    """Returns a photograph of two dahlias with their masks (by their orange) and boxes."""
    image = photograph('flower.jpg')
    # As int: a difference of uint8 would wrap around.
    orange = (image[..., 0].astype(int) > image[..., 2] + 60).astype(np.uint8)
    # Opening removes specks of orange in the background.
    opened = cv2.morphologyEx(orange, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(opened)
    # Component 0 is the background.
    largest = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:2] + 1
    masks = np.stack([parts == k for k in largest])
    boxes = [[x, y, x + w, y + h] for x, y, w, h in stats[largest, :4]]
    return {'image': image, 'boxes': np.array(boxes, np.float32), 'masks': masks}


def pagoda() -> dict[str, Any]:
    """Returns a photograph of a pagoda."""
    return {'image': photograph('china.jpg')}


def photograph(name: str) -> np.ndarray:
    """Returns one of scikit-learn's photographs, uint8 [213, 320, 3]."""
    from sklearn.datasets import load_sample_image

    return geometry.resample(load_sample_image(name), (213, 320), 'bilinear')


# --- figures --------------------------------------------------------------------------------------------------------


def draw_sheet(example: dict[str, Any], links: Sequence[tuple[str, dict[str, Any]]]) -> Figure:
    """Draws an example unchanged, then after each of the transforms alone."""
    results, titles = [example], ['original']
    for name, arguments in links:
        # By name, as a config does, so that the page shows what a config gets.
        (link,) = transforms.make_transforms(dict(name=name, **arguments))
        # A fixed key draws the same numbers on every run, so the pictures change only with the code.
        results.append(link.apply(example, Key(0, VISIT, 0)))
        titles.append(format_title(name, arguments))
    return plots.draw_annotated_images(results, titles)


def format_title(name: str, arguments: dict[str, Any]) -> str:
    """Returns the name of a transform and those of its arguments that matter for the picture."""
    if name == 'rand_augment':
        return ''.join(arguments.get('operations', ('count=2, magnitude=9',)))
    shown = ', '.join(f'{k}={v}' for k, v in arguments.items() if k not in ('p', 'fill', 'value'))
    return '\n'.join([name, *textwrap.wrap(shown, 36)])


def draw_ten_crop(example: dict[str, Any]) -> Figure:
    """Draws the ten crops of an example."""
    crops = chain.apply_chain((transforms.resize_short(160), transforms.ten_crop(128)), example, Key(0, 0, 0))['image']
    positions = ('upper left', 'upper right', 'lower left', 'lower right', 'middle')
    titles = [*positions, *(f'{position}, mirrored' for position in positions)]
    return plots.draw_annotated_images([{'image': crop} for crop in crops], titles, columns=5, width=1.9)


def draw_mixup(examples: dict[str, dict[str, Any]]) -> Figure:
    """Draws four mixtures of two examples, in the order of their weights."""
    source = [{'image': e['image'], 'label': np.asarray(k)} for k, e in enumerate(examples.values())]
    link = transforms.mixup(num_classes=2, alpha=1.0)
    results = [link.apply(source[0], Key(0, visit, 0), source) for visit in range(20)]
    # Mixtures of nearly one image alone would show nothing.
    results = sorted((r for r in results if 0.1 < r['label'][0] < 0.9), key=lambda r: -r['label'][0])[::2][:4]
    titles = [', '.join(f'{n} {share:.2f}' for n, share in zip(examples, r['label'], strict=True)) for r in results]
    return plots.draw_annotated_images(results, titles)


def draw_recipes(example: dict[str, Any], visits: int = 4) -> Figure:
    """Draws what the recipes of detectors make of an example on its first visits."""
    results, titles = [], []
    for name, spec in RECIPES.items():
        links = transforms.make_transforms(spec)
        results += [chain.apply_chain(links, example, Key(0, visit, 0)) for visit in range(visits)]
        titles += [f'{name}, visit {visit}' for visit in range(visits)]
    return plots.draw_annotated_images(results, titles, columns=visits)


def save(figure: Figure, path: Path) -> None:
    # JPEG: photographs as PNG would be several times as large in the repository.
    figure.savefig(path, dpi=100, pil_kwargs=dict(quality=82, optimize=True))


# --- the page --------------------------------------------------------------------------------------------------------


def render_page(folder: str) -> str:
    """Returns the text of the page, with pictures from `folder`."""
    lines: list[str] = [*PREFACE.splitlines()]
    for name, (heading, _, links) in SHEETS.items():
        lines += ['', f'## {heading}', '', f'![{heading}]({folder}/{name}.jpg)', '', *describe(n for n, _ in links)]
        if name == 'detection':
            lines += render_recipes(folder)
    lines += ['', '## Several views for evaluation', '', f'![ten_crop]({folder}/ten_crop.jpg)', '']
    lines += describe(('ten_crop', 'grid_crops', 'googlenet_crops'))
    lines += ['', '## Mixtures of two examples', '', f'![mixup]({folder}/mixup.jpg)', '', *describe(('mixup',))]
    lines += ['', '## Decoding', '', *describe(('decode', 'decode_random_resized_crop'))]
    return '\n'.join(lines) + '\n'


def render_recipes(folder: str) -> list[str]:
    """Returns the section that shows whole recipes."""
    lines = ['', '## The recipes of SSD and YOLO', '', f'![SSD and YOLO]({folder}/recipes.jpg)', '', '```python']
    for name, spec in RECIPES.items():
        arguments = [f'    {key}={format_value(value)},' for key, value in spec.items()]
        lines += [f'transforms = dict(  # {name}', *arguments, ')']
    return [*lines, '```']


def format_value(value: Any) -> str:
    """Returns a value as a config writes it."""
    return 'dict(' + ', '.join(f'{k}={v}' for k, v in value.items()) + ')' if isinstance(value, dict) else repr(value)


def describe(names: Iterable[str]) -> list[str]:
    """Returns the first paragraph of each transform's docstring."""
    lines = []
    for name in dict.fromkeys(names):
        # From the code, so that the page cannot fall behind it.
        paragraph = (inspect.getdoc(getattr(transforms, name)) or '').partition('\n\n')[0]
        lines.append(f'- **{name}**: {" ".join(paragraph.split())}')
    return lines


if __name__ == '__main__':
    tools.run(main)
