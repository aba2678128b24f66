"""A picture of every augmentation, with boxes and masks that move along, and the page that shows them.

    python -m launch.augmentations [--output docs/augmentation]

Writes OUTPUT.md and OUTPUT/*.jpg, from scikit-learn's two photographs. The same on every run.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from canon import plots
from canon.data import Key, transforms
from canon.data.images import geometry
from canon.data.pipeline import chain
from canon.errors import CanonError
from launch import tools

SHEETS = {
    'geometric': (
        'Where pixels go',
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
        ),
    ),
    'colours': (
        'What colours become',
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
        'The fourteen operations of RandAugment at magnitude 9, and two of them at random',
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
DRAW = 5  # the visit that is shown
PREFACE = """# Augmentation on the host

Made by `python -m launch.augmentations`. A config names transforms in a chain,

```python
transforms = dict(chain=('random_resized_crop', 'random_flip'), random_resized_crop=dict(size=224))
```

Each takes uint8 and gives uint8, a byte a pixel, and what it draws is a function of (seed, visit, example): neither
threads nor hosts nor the rest of the batch change it.

Boxes (`boxes`, [K, 4] of x0, y0, x1, y1 in pixels), one mask a box (`masks`, [K, H, W]) and a segmentation
(`segmentation`, [H, W]) move along where an example has them; `along=dict(boxes='gt', per_box=('gt_class',))` gives
other names. Boxes are clipped to the image, and those out of sight are dropped with all that is theirs; `pad_boxes`
makes a batch of what is left. A box that is turned twice grows twice: let one `random_affine` do it all."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.parser('augmentations', __doc__)
    parser.add_argument('--output', type=Path, default=Path('docs/augmentation'), metavar='STEM')
    folder = parser.parse_args(argv).output
    examples = {'flowers': flowers(), 'pagoda': pagoda()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, example, links) in SHEETS.items():
            save(sheet(examples[example], links), folder / f'{name}.jpg')
        save(views(examples['pagoda']), folder / 'ten_crop.jpg')
        save(mixed(examples), folder / 'mixup.jpg')
        folder.with_name(folder.name + '.md').write_text(page(folder.name))
    except OSError as error:
        raise CanonError(f'{folder} cannot be written: {error.strerror}') from error
    print(f'{folder}.md, {folder}/: {len(SHEETS) + 2} pictures')
    return 0


# --- two examples ----------------------------------------------------------------------------------------------------


def flowers() -> dict[str, Any]:
    """Two dahlias with their masks (what is orange) and their boxes."""
    image = photograph('flower.jpg')
    orange = (image[..., 0].astype(int) > image[..., 2] + 60).astype(np.uint8)
    apart = cv2.morphologyEx(orange, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(apart)
    largest = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:2] + 1
    masks = np.stack([parts == k for k in largest])
    boxes = [[x, y, x + w, y + h] for x, y, w, h in stats[largest, :4]]
    return {'image': image, 'boxes': np.array(boxes, np.float32), 'masks': masks}


def pagoda() -> dict[str, Any]:
    return {'image': photograph('china.jpg')}


def photograph(name: str) -> np.ndarray:
    """uint8 [213, 320, 3]."""
    from sklearn.datasets import load_sample_image

    return geometry.resample(load_sample_image(name), (213, 320), 'bilinear')


# --- pictures --------------------------------------------------------------------------------------------------------


def sheet(example: dict[str, Any], links: Sequence[tuple[str, dict[str, Any]]]):
    """The example as it is, then after each of `links` by itself."""
    results, titles = [example], ['as it is']
    for name, arguments in links:
        (link,) = transforms.make(dict(name=name, **arguments))
        results.append(link.apply(example, Key(0, DRAW, 0)))
        titles.append(title(name, arguments))
    return plots.scenes(results, titles)


def title(name: str, arguments: dict[str, Any]) -> str:
    if name == 'rand_augment':
        return ''.join(arguments.get('operations', ('count=2, magnitude=9',)))
    told = ', '.join(f'{k}={v}' for k, v in arguments.items() if k not in ('p', 'fill', 'value'))
    return '\n'.join([name, *textwrap.wrap(told, 36)])


def views(example: dict[str, Any]):
    crops = chain.apply((transforms.resize_short(160), transforms.ten_crop(128)), example, Key(0, 0, 0))['image']
    places = ('upper left', 'upper right', 'lower left', 'lower right', 'middle')
    titles = [*places, *(f'{place}, mirrored' for place in places)]
    return plots.scenes([{'image': crop} for crop in crops], titles, columns=5, width=1.9)


def mixed(examples: dict[str, dict[str, Any]]):
    source = [{'image': e['image'], 'label': np.asarray(k)} for k, e in enumerate(examples.values())]
    link = transforms.mixup(num_classes=2, alpha=1.0)
    results = [link.apply(source[0], Key(0, visit, 0), source) for visit in range(20)]
    results = sorted((r for r in results if 0.1 < r['label'][0] < 0.9), key=lambda r: -r['label'][0])[::2][:4]
    titles = [', '.join(f'{n} {share:.2f}' for n, share in zip(examples, r['label'], strict=True)) for r in results]
    return plots.scenes(results, titles)


def save(figure, path: Path) -> None:
    figure.savefig(path, dpi=100, pil_kwargs=dict(quality=82, optimize=True))


# --- the page --------------------------------------------------------------------------------------------------------


def page(folder: str) -> str:
    lines: list[str] = [*PREFACE.splitlines()]
    for name, (heading, _, links) in SHEETS.items():
        lines += ['', f'## {heading}', '', f'![{heading}]({folder}/{name}.jpg)', '', *told(n for n, _ in links)]
    lines += ['', '## Several views for a test', '', f'![ten_crop]({folder}/ten_crop.jpg)', '']
    lines += told(('ten_crop', 'grid_crops', 'googlenet_crops'))
    lines += ['', '## Two examples in one', '', f'![mixup]({folder}/mixup.jpg)', '', *told(('mixup',))]
    lines += ['', '## From the file', '', *told(('decode', 'decode_random_resized_crop'))]
    return '\n'.join(lines) + '\n'


def told(names) -> list[str]:
    """The first paragraph of each transform's docstring."""
    out = []
    for name in dict.fromkeys(names):
        paragraph = (inspect.getdoc(getattr(transforms, name)) or '').partition('\n\n')[0]
        out.append(f'- **{name}**: {" ".join(paragraph.split())}')
    return out


if __name__ == '__main__':
    tools.run(main)
