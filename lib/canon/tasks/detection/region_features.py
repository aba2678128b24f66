"""Features of regions, computed once and kept in files: of warped crops (R-CNN), or from a map per image (SPP-net)."""

from __future__ import annotations

import glob
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from canon import backend, named
from canon.data.detection.proposals import WithProposals
from canon.data.detection.region_batches import RegionCrop, label_regions, list_regions
from canon.data.pipeline.source import Source
from canon.errors import CanonError, UsageError, first_line

# From an image uint8 [H, W, 3] and boxes [R, 4] in pixels to {layer: float32 [R, D]}.
Describe = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
_NUMBER = '[0-9]' * 5  # of a file: '*' would take those of 'train-hard' for files of 'train'


class RegionFeatures(NamedTuple):
    """The regions of some images and their features, image after image.

    Attributes:
      images: int64 [n], numbers in the source.
      counts: int64 [n], regions of each.
      boxes: float32 [T, 4].
      labels: int32 [T], as in `canon.data.detection.region_batches.RegionTable`.
      overlaps: float32 [T], likewise.
      objects: bool [T], likewise.
      seconds: that the features took.
      layers: {name: float32 [T, D]}.
    """

    images: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray
    objects: np.ndarray
    seconds: float
    layers: dict[str, np.ndarray]

    def split(self) -> Iterable[tuple[int, slice]]:
        """Yields (number in the source, its rows) of each image."""
        stops = np.cumsum(self.counts)
        for image, count, stop in zip(self.images.tolist(), self.counts.tolist(), stops.tolist(), strict=True):
            yield image, slice(stop - count, stop)


@dataclass(frozen=True)
class FeatureSettings:
    """config.features.

    Attributes:
      stage: the one whose network computes them.
      layers: that are kept, of 'pool5', 'fc6' and 'fc7'.
      images_per_file: what an interruption may lose.
    """

    stage: str = 'finetune'
    layers: tuple[str, ...] = ('pool5', 'fc7')
    images_per_file: named.Count = 64

    def divide(self, count: int) -> list[range]:
        """Returns the numbers of the images of each file."""
        return [
            range(start, min(start + self.images_per_file, count)) for start in range(0, count, self.images_per_file)
        ]


@dataclass(frozen=True)
class MapScales:
    """config.scales: the sizes of the image that SPP-net computes maps of (section 4.1).

    A region is described on the map on which its area is nearest to that of a square of `region` pixels.

    A program is compiled for each size of canvas. Resized images are therefore padded, at the bottom and at the right,
    to the few canvases of `list_canvases`: for each side two, upright and wide, of each aspect (a square is one).
    Padding has the colour that the network subtracts. Features differ from those of an image without padding only where
    a receptive field reaches beyond its right or lower edge.

    Attributes:
      sides: shorter sides of the resized image.
      longest: of the longer side; the shorter one is smaller then.
      region: side of the square.
      multiple: of which the sides of canvases are.
      aspects: of canvases, longer over shorter side; a longer image has one of `longest`.
    """

    sides: tuple[named.Count, ...] = (480, 576, 688, 864, 1200)
    longest: named.Count = 2000
    region: named.Positive = 224.0
    multiple: named.Count = 64
    aspects: tuple[named.Positive, ...] = (1.0, 4 / 3, 3 / 2, 2.0)

    def list_canvases(self) -> list[tuple[int, int]]:
        """Lists all canvases (height, width) that images may be padded to: as many programs are compiled at most."""
        pairs = [(self._pad(side), long) for side in self.sides for long in self._list_long_sides(side)]
        return sorted({*pairs, *((long, short) for short, long in pairs)})

    def choose_canvas(self, index: int, height: int, width: int) -> tuple[int, int]:
        """Returns the canvas (height, width) of an image resized by the scale of an index of `sides`."""
        side, long = self.sides[index], max(height, width)
        short, long = self._pad(side), next(n for n in self._list_long_sides(side) if n >= long)
        return (short, long) if height <= width else (long, short)

    def _list_long_sides(self, side: int) -> list[int]:
        sides = [min(round(min(side, self.longest) * aspect), self.longest) for aspect in self.aspects]
        return sorted({self._pad(n) for n in (*sides, self.longest)})

    def _pad(self, side: int) -> int:
        return -(-min(side, self.longest) // self.multiple) * self.multiple

    def measure(self, height: int, width: int) -> np.ndarray:
        """Returns the scale of the image for each of `sides`."""
        short, long = min(height, width), max(height, width)
        return np.array([min(side / short, self.longest / long) for side in self.sides])

    def choose(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        """Returns the index of the scale of each box, int [R]."""
        sides = np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1))
        # "Closest" in area, as the paper has it: among the given scales this prefers the smaller of two neighbours.
        areas = (sides[:, None] * self.measure(height, width)) ** 2
        return np.abs(areas - self.region**2).argmin(1)


def make_crop_describer(
    model: Any,
    variables: Mapping[str, Any],
    make_input: Callable[[Mapping[str, Any]], Any],
    crop: RegionCrop,
    layers: Sequence[str],
    chunk: named.Count = 128,
) -> Describe:
    """Makes the function that describes each region by a crop of its own: R-CNN, section 2.1.

    Args:
      model: a network with `describe(images) -> {layer: [N, D]}`, such as `canon.models.rcnn.rcnn`.
      variables: of the model.
      make_input: the network's input from {'image': uint8}.
      crop: warps the regions.
      layers: that are kept.
      chunk: crops that the network takes at once; their number is padded to a multiple.
    """

    def describe(variables, images):
        described = model.apply(variables, make_input({'image': images}), method='describe')
        return {layer: described[layer] for layer in layers}

    compiled, variables = backend.jit(describe), jax.device_put(variables)  # once, not with every chunk

    def describe_regions(image: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for part, count in _pad_to_chunks(boxes, chunk):
            described = compiled(variables, crop(image, part))
            parts.append({name: np.asarray(values, np.float32)[:count] for name, values in described.items()})
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in layers}

    return describe_regions


def make_map_describer(
    model: Any,
    variables: Mapping[str, Any],
    make_input: Callable[[Mapping[str, Any]], Any],
    scales: MapScales,
    layers: Sequence[str],
    fill: Sequence[float] = (0.0, 0.0, 0.0),
    chunk: named.Count = 256,
) -> Describe:
    """Makes the function that describes all regions from the maps of the image at a few scales: SPP-net, section 4.1.

    Args:
      model: a network with `extract(images) -> maps` and `describe(maps, boxes) -> {layer: [B, R, D]}`, such as
        `canon.models.spp_net.spp_net`.
      variables: of the model.
      make_input: the network's input from {'image': uint8}.
      scales: of the image.
      layers: that are kept.
      fill: colour of the padding, in 0..255.
      chunk: regions that are pooled at once; their number is padded to a multiple.
    """

    def extract(variables, image):
        return model.apply(variables, make_input({'image': image[None]}), method='extract')

    def describe(variables, maps, boxes):
        described = model.apply(variables, maps, boxes[None], method='describe')
        return {layer: described[layer][0] for layer in layers}

    extract, describe, variables = backend.jit(extract), backend.jit(describe), jax.device_put(variables)

    def describe_regions(image: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
        height, width = image.shape[:2]
        ratios, chosen = scales.measure(height, width), scales.choose(boxes, height, width)
        rows, parts = [], []
        # A map that no region needs is not computed; an image without regions has one empty part, for its shapes.
        for index in np.unique(chosen) if len(boxes) else [0]:
            inner = max(round(height * ratios[index]), 1), max(round(width * ratios[index]), 1)
            resized = _resize_padded(image, inner, scales.choose_canvas(index, *inner), fill)
            y, x = inner[0] / height, inner[1] / width
            maps, own = extract(variables, resized), np.flatnonzero(chosen == index)
            scaled = boxes[own] * np.array([x, y, x, y], np.float32)
            for part, count in _pad_to_chunks(scaled, chunk):
                described = describe(variables, maps, part)
                parts.append({name: np.asarray(values, np.float32)[:count] for name, values in described.items()})
            rows.append(own)
        order = np.argsort(np.concatenate(rows), kind='stable')
        return {layer: np.concatenate([part[layer] for part in parts])[order] for layer in layers}

    return describe_regions


def _pad_to_chunks(boxes: np.ndarray, chunk: int) -> Iterable[tuple[np.ndarray, int]]:
    """Yields chunks of boxes padded by the first one, and how many of each are real; an empty one if there are none."""
    for start in range(0, max(len(boxes), 1), chunk):
        part = np.asarray(boxes[start : start + chunk], np.float32)
        filling = part[:1] if len(part) else np.array([[0, 0, 1, 1]], np.float32)
        yield np.concatenate([part, np.repeat(filling, chunk - len(part), 0)]), len(part)


def _resize_padded(
    image: np.ndarray, inner: tuple[int, int], canvas: tuple[int, int], fill: Sequence[float]
) -> np.ndarray:
    """Returns the image, resized to `inner`, in the upper left corner of a canvas (height, width)."""
    height, width = inner
    padded = np.empty((*canvas, 3), np.uint8)
    padded[:] = np.round(np.asarray(fill, np.float64))
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    padded[:height, :width] = cv2.resize(image, (width, height), interpolation=method)
    return padded


def estimate_bytes(source: WithProposals, describe: Describe) -> int:
    """Estimates the size of the files of features of a source, from the number of its proposals and one description.

    Objects, which are regions in training as well, are one of some hundred, and left out.
    """
    count = min(len(source.proposals), len(source))
    if not count:
        return 0
    each = np.diff(source.proposals.starts)
    regions = (each if source.most is None else np.minimum(each, source.most)).mean() * len(source)
    layers = describe(source[0]['image'], np.zeros((0, 4), np.float32))
    # A region also has its box, label, overlap and mark.
    return round(regions * (sum(values.shape[1] for values in layers.values()) * 4 + 25))


def describe_images(
    source: Source,
    numbers: Sequence[int],
    describe: Describe,
    with_objects: bool,
    report: Callable[[int], None] = lambda number: None,
) -> RegionFeatures:
    """Describes the regions of some images of a source.

    Args:
      source: examples with `image`, `boxes`, `labels` and `proposals`.
      numbers: of the examples.
      describe: of `make_crop_describer` or `make_map_describer`.
      with_objects: whether objects are regions as well, before the proposals of their image: for training.
      report: called with the number of each image that is done; may raise to interrupt.

    Raises:
      CanonError: a feature is not finite.
    """
    parts, counts, layers, seconds = [], [], [], 0.0
    for number in numbers:
        example = source[number]
        if with_objects:
            regions = list_regions(example)
        else:
            labelled = label_regions(example, example['proposals'])
            regions = (*labelled, np.zeros(len(labelled[0]), bool))
        began = time.perf_counter()
        layers.append(describe(example['image'], regions[0]))
        seconds += time.perf_counter() - began
        for name, values in layers[-1].items():
            if not np.isfinite(values).all():
                raise CanonError(f'example {number} of {source!r}: features of {name!r} are not finite')
        parts.append(regions)
        counts.append(len(regions[0]))
        report(number)
    joined = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = layers[0] if layers else ()
    features = {name: np.concatenate([part[name] for part in layers]) for name in names}
    return RegionFeatures(np.array(numbers, np.int64), np.array(counts, np.int64), *joined, seconds, features)


def write_features(path: Path, features: RegionFeatures) -> None:
    """Writes a file of features, .npz, uncompressed: activations compress badly."""
    fields = {name: value for name, value in features._asdict().items() if name != 'layers'}
    try:
        with open(path, 'wb') as file:
            np.savez(file, **fields, **{f'layer_{name}': values for name, values in features.layers.items()})
    except OSError as error:  # another program may have filled the disk
        raise CanonError(f'{path} cannot be written: {first_line(error)}; earlier files stay') from error


def read_features(path: Path, layers: Sequence[str] = ()) -> RegionFeatures:
    """Reads a file of features, with some layers.

    Raises UsageError, naming the file, if it is damaged or lacks a layer.
    """
    try:
        with np.load(path) as file:
            stored = {name: file[name] for name in file.files if name[6:] in layers or name in RegionFeatures._fields}
            there = [name.removeprefix('layer_') for name in file.files if name.startswith('layer_')]
        fields = {name: stored[name] for name in RegionFeatures._fields if name != 'layers'}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f'{path} is not a file of features ({first_line(error)}); remove it') from error
    if missing := [name for name in layers if name not in there]:
        raise UsageError(
            f'{path} has no features of the layer {missing[0]!r}, only of {", ".join(there)}; list it in '
            'features.layers and compute them again'
        )
    return RegionFeatures(**fields, layers={name: stored[f'layer_{name}'] for name in layers})


class FeatureFiles:
    """The files of features of a split, in order; each is read when it is needed."""

    def __init__(self, folder: Path, split: str, layers: Sequence[str]):
        """
        Args:
          folder: that holds them.
          split: of their names, `<split>-<number>.npz` with five digits.
          layers: that are read.

        Raises:
          UsageError: there is none.
        """
        self.paths, self.layers = sorted(folder.glob(f'{glob.escape(split)}-{_NUMBER}.npz')), tuple(layers)
        if not self.paths:
            raise UsageError(f'{folder} has no features of {split!r}; run the stage that computes them first')

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self):
        for path in self.paths:
            yield read_features(path, self.layers)


def measure_feature_norm(
    files: Iterable[RegionFeatures], layer: str, most_images: int = 200, most_rows: int = 200, seed: int = 0
) -> float:
    """Returns the mean norm of features of a layer, of random regions of random images of all files.

    Args:
      files: read once.
      layer: of the features.
      most_images: that are drawn; all if there are fewer. Images without regions do not count.
      most_rows: regions that are drawn of each.
      seed: of the draws.

    Raises:
      CanonError: all of these features are zero.
    """
    generator = np.random.default_rng(seed)
    sums: list[tuple[float, int]] = []  # of the norms, and their number, of each chosen image
    seen = 0
    for part in files:
        values = part.layers[layer]
        for _, rows in part.split():
            if rows.start == rows.stop:
                continue
            # A reservoir: every image has the same chance, although their number is unknown until the end.
            place = len(sums) if len(sums) < most_images else int(generator.integers(seen + 1))
            seen += 1
            if place >= most_images:
                continue
            own = rows.start + generator.permutation(rows.stop - rows.start)[:most_rows]
            sums[place : place + 1] = [(float(np.linalg.norm(values[own], axis=1).sum()), len(own))]
    total, count = map(sum, zip(*sums, strict=True)) if sums else (0.0, 0)
    if not total:
        raise CanonError(f'all features of {layer!r} are zero: the network has learnt nothing')
    return total / count


def summarise_features(paths: Iterable[Path], split: str) -> dict[str, float]:
    """Returns the regions and the seconds per image of files of features, as metrics of a split."""
    seconds, images, count = 0.0, 0, 0
    for path in paths:
        part = read_features(path)
        seconds, images, count = seconds + float(part.seconds), images + len(part.images), count + len(part.boxes)
    return {f'{split}/regions': count / images, f'{split}/seconds_per_image': seconds / images}
