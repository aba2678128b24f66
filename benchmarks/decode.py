"""Measures images per second and core: a JPEG of 500x375 decoded, randomly cropped to 224 and flipped.

    python -m benchmarks.decode [--rounds 9] [--images 48] [--size 500 375] [--folder DIR]

All libraries receive the same bytes and the same crop windows, and batches are not stacked. Times are CPU times of one
process with one thread, in turns, and the median counts. --folder names your own JPEGs: scikit-learn's photographs are
few and smooth. Libraries that are not installed are left out (`simplejpeg` is not a dependency of Canon). The exit
status is 1 below the documented 120 images/s.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from canon.data import Key, Transform, rng, transforms
from canon.data.images import geometry
from canon.data.images.image_files import Encoded
from canon.data.pipeline import chain

SIZE = 224
DOCUMENTED = 120  # images/s
Crop = Callable[[bytes, tuple[int, ...]], np.ndarray]
View = Callable[[Encoded, int], np.ndarray]


def canon(*links: Transform) -> View:
    return lambda data, i: chain.apply_chain(links, {'image': data}, Key(0, 0, i))['image']


def decode_opencv(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def resize_opencv(image: np.ndarray, box: tuple[int, ...], interpolation: int) -> np.ndarray:
    x0, y0, x1, y1 = box
    return cv2.resize(image[y0:y1, x0:x1], (SIZE, SIZE), interpolation=interpolation)


def pillow(data: bytes, box: tuple[int, ...]) -> np.ndarray:
    """Crops and resizes as torchvision does, antialiased."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(
            image.convert('RGB').crop((box[0], box[1], box[2], box[3])).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        )


def pillow_draft(data: bytes, box: tuple[int, ...]) -> np.ndarray:
    """Decodes the JPEG at 1/2, 1/4 or 1/8 of its size if the window is that much larger than the crop."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        step = max(s for s in (1, 2, 4, 8) if s == 1 or min(box[2] - box[0], box[3] - box[1]) >= s * SIZE)
        # libjpeg scales by powers of two while it decodes, which costs less than decoding all pixels.
        image.draft('RGB', (width // step, height // step))
        x, y = image.size[0] / width, image.size[1] / height
        window = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        return np.asarray(image.convert('RGB').resize((SIZE, SIZE), Image.Resampling.BILINEAR, window))


def opencv(interpolation: int) -> Crop:
    def crop(data, box):
        return resize_opencv(decode_opencv(data), box, interpolation)

    return crop


def opencv_and_pillow(data: bytes, box: tuple[int, ...]) -> np.ndarray:
    x0, y0, x1, y1 = box
    image = Image.fromarray(decode_opencv(data)[y0:y1, x0:x1])
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def simplejpeg(data: bytes, box: tuple[int, ...]) -> np.ndarray:
    import simplejpeg  # ty: ignore[import-not-found]

    return resize_opencv(simplejpeg.decode_jpeg(data), box, cv2.INTER_AREA)


def with_random_window(crop: Crop, shape: tuple[int, int]) -> View:
    """Returns a view that crops images of `shape` (height, width) at the windows that Canon draws, and flips them."""

    def view(data, i):
        generator = rng(Key(0, 0, i))
        image = crop(data, geometry.draw_crop_box(generator, *shape, (0.08, 1.0), (3 / 4, 4 / 3)))
        return image[:, ::-1] if generator.random() < 0.5 else image

    return view


def list_views(shape: tuple[int, int]) -> dict[str, View]:
    """Returns {name: view} of all forms that are compared."""
    crop, decode, flip = transforms.random_resized_crop, transforms.decode(), transforms.random_flip()
    others: dict[str, Crop] = {
        'Pillow': pillow,
        'Pillow, draft mode': pillow_draft,
        'OpenCV, area': opencv(cv2.INTER_AREA),
        'OpenCV, bilinear (aliases)': opencv(cv2.INTER_LINEAR),
        'OpenCV decodes, Pillow sizes': opencv_and_pillow,
    }
    if importlib.util.find_spec('simplejpeg'):
        others['simplejpeg, OpenCV area'] = simplejpeg
    return {
        'canon, decode=False': canon(transforms.decode_random_resized_crop(SIZE), flip),
        'canon, decode then crop': canon(decode, crop(SIZE), flip),
        "canon, method='bilinear'": canon(decode, crop(SIZE, method='bilinear'), flip),
        **{name: with_random_window(crop, shape) for name, crop in others.items()},
    }


def make_photographs(count: int, size: tuple[int, int], folder: Path | None) -> list[Encoded]:
    """Returns JPEGs of `size` (width, height), quality 90 with chroma subsampling, cut from photographs."""
    if folder:
        originals = [Image.open(file).convert('RGB') for file in sorted(folder.glob('**/*.jp*g'))[:count]]
    else:
        from sklearn.datasets import load_sample_images

        originals = [Image.fromarray(image) for image in load_sample_images().images]
    generator, encoded = np.random.default_rng(0), []
    for i in range(count):
        original = originals[i % len(originals)]
        x0, y0, x1, y1 = geometry.draw_crop_box(generator, *original.size[::-1], (0.5, 1.0), (1.33, 1.34))
        buffer = io.BytesIO()
        original.crop((x0, y0, x1, y1)).resize(size, Image.Resampling.LANCZOS).save(buffer, 'JPEG', quality=90)
        encoded.append(Encoded(buffer.getvalue(), f'photograph {i}'))
    return encoded


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--images', type=int, default=48)
    parser.add_argument('--size', type=int, nargs=2, default=(500, 375), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--folder', type=Path, help='of JPEGs, instead of two photographs of scikit-learn')
    arguments = parser.parse_args()

    width, height = arguments.size
    images = make_photographs(arguments.images, (width, height), arguments.folder)
    views = list_views((height, width))
    seconds: dict[str, list[float]] = {name: [] for name in views}
    for _ in range(arguments.rounds + 1):  # the first is not counted
        for name, view in views.items():
            start = time.process_time()  # CPU time: other processes do not count
            for i, image in enumerate(images):
                view(image, i)
            seconds[name].append((time.process_time() - start) / len(images))
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    canon_time = medians['canon, decode=False']
    size = statistics.mean(map(len, images)) / 1000
    print(f'{len(images)} JPEGs of {width}x{height}, {size:.0f} kB on average; {arguments.rounds} rounds, one core')
    print(f'{"":32s}{"images/s":>10s}{"canon is":>10s}')
    for name, median in medians.items():
        print(f'{name:32s}{1 / median:10,.0f}{median / canon_time:9.2f}x')
    print(f'documented: {DOCUMENTED}; {"reached" if canon_time <= 1 / DOCUMENTED else "NOT reached"}')
    return 0 if canon_time <= 1 / DOCUMENTED else 1


if __name__ == '__main__':
    sys.exit(main())
