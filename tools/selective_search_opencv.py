"""opencv-contrib's side of benchmarks/selective_search.py, and its proposals for other images.

    python tools/selective_search_opencv.py                      # a side of the benchmark
    python tools/selective_search_opencv.py IMAGES.npz BOXES.npz  # boxes of images, by name

The second form reads arrays uint8 [H, W, 3] (RGB) and writes float32 [P, 4] under the same names, at pixel edges.
"""

import sys

import numpy as np


def read_photograph() -> np.ndarray:
    """Returns a photograph that scikit-image contains, cut to 375 x 500: uint8 [375, 500, 3]."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:375, :500])


def propose(image: np.ndarray, strategy: str = 'fast') -> np.ndarray:
    """Returns opencv's boxes, [P, 4] of x, y, width, height."""
    import cv2

    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    (search.switchToSelectiveSearchFast if strategy == 'fast' else search.switchToSelectiveSearchQuality)()
    return search.process()


def write_boxes(images: str, boxes: str) -> None:
    """Writes the boxes of all images of a file."""
    with np.load(images) as file:
        found = {name: propose(file[name]).astype(np.float32) for name in file.files}
    np.savez(boxes, **{name: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1) for name, b in found.items()})


if __name__ == '__main__':
    if len(sys.argv) == 3:
        write_boxes(*sys.argv[1:])
    else:
        import cv2
        import turns

        photograph = read_photograph()
        works = {name: lambda name=name: lambda: propose(photograph, name) for name in ('fast', 'quality')}
        turns.serve(works, f'opencv {cv2.__version__}')
