"""Seconds that a detector by regions takes for an image: its proposals, its features and its heads apart.

A detector is a chain of steps from a batch of one image to its detections. Each step belongs to one of `PARTS`, which
mean the same in all systems: 'proposals' are the boxes, 'features' all that is computed from the pixels up to the last
hidden layer of each region (fc7), and 'heads' the classes, the regressed boxes and non-maximum suppression.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from canon import backend
from canon.data.pipeline.keys import Key
from canon.data.transforms import pad_proposals
from canon.metrics import Rows
from canon.metrics.detection import collect_detections
from canon.tasks.detection.prediction import INPUTS
from canon.tasks.detection.region_detection import RegionSelection
from canon.tasks.detection.region_features import Describe
from canon.tasks.detection.regions import RegionSettings, RPNSettings
from canon.tasks.detection.single_shot import DetectionSettings, MakeInput

PARTS = ('proposals', 'features', 'heads')

# (part, function from the fields so far to further ones). The first step gets a batch of one image; the last ones add
# 'detections', as `Task.predict` of a detector returns them.
Step = tuple[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]


class DetectionTimes(NamedTuple):
    """Holds the measurements of `time_detector`.

    Attributes:
      seconds: {part: float64 [N]}, of each image.
      rows: the detections of all images with their objects, which `canon.metrics.detection` scores.
    """

    seconds: dict[str, np.ndarray]
    rows: Rows

    def summarise(self) -> dict[str, float]:
        """Returns the median of each part as `seconds_<part>`, and their sum as `seconds_per_image`."""
        medians = {f'seconds_{part}': float(np.median(values)) for part, values in self.seconds.items()}
        return {**medians, 'seconds_per_image': sum(medians.values())}


def time_detector(
    steps: Sequence[Step],
    batches: Iterable[Mapping[str, Any]],
    warm_up: int = 3,
    report: Callable[[int], None] = lambda done: None,
) -> DetectionTimes:
    """Detects the objects of images one by one, and measures the seconds of each part.

    Args:
      steps: of the detector.
      batches: of one image each, with its objects; iterated twice.
      warm_up: images that are detected once before, so that programs are compiled. A program that only a later image
        needs makes the time of that image long, which the median leaves out.
      report: called with the number of images that are done; may raise to interrupt.
    """
    for batch in itertools.islice(batches, warm_up):
        _run(steps, batch)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    rows = Rows(())
    for done, batch in enumerate(batches, 1):
        own, fields = _run(steps, batch)
        for part, value in own.items():
            seconds[part].append(value)
        rows = rows + collect_detections(jax.tree.map(np.asarray, fields['detections']), batch)
        report(done)
    return DetectionTimes({part: np.array(values) for part, values in seconds.items()}, rows)


def _run(steps: Sequence[Step], batch: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the seconds of each part, and all fields at the end."""
    seconds, fields = dict.fromkeys(PARTS, 0.0), dict(batch)
    for part, compute in steps:
        began = time.perf_counter()
        # JAX computes asynchronously: without this the time of a step would be that of a later one.
        made = jax.block_until_ready(compute(fields))
        seconds[part] += time.perf_counter() - began
        fields |= made
    return seconds, fields


def make_search_step(propose: Callable[[np.ndarray], np.ndarray], most: int) -> Step:
    """Makes the step that searches the image for proposals; the first `most` in rank are taken."""
    pad = pad_proposals(most)

    def search(fields):
        boxes = pad.apply({'proposals': propose(np.asarray(fields['image'][0]))}, Key(0, 0, 0))
        return {name: values[None] for name, values in boxes.items()}

    return 'proposals', search


def make_network_steps(
    model: Any,
    make_input: MakeInput,
    variables: Mapping[str, Any],
    settings: DetectionSettings,
    regions: RegionSettings,
    rpn: RPNSettings | None = None,
) -> list[Step]:
    """Makes the steps of Fast R-CNN, or of Faster R-CNN: together they compute what `predict` of their tasks does.

    Args:
      model: a linen module with `extract`, `describe` and `score`, such as `canon.models.fast_rcnn.fast_rcnn`.
      make_input: the network's input from a batch.
      variables: of the model.
      settings: of the detections.
      regions: of the second stage.
      rpn: of the proposals, which the model's `propose` makes; None for those of an earlier step.
    """
    variables = jax.device_put(variables)

    def compile_step(method: Callable, *names: str) -> Callable:
        def apply(variables, fields):
            return model.apply(variables, fields, method=method)

        compiled = backend.jit(apply)
        return lambda fields: compiled(variables, {name: fields[name] for name in (*INPUTS, *names) if name in fields})

    def extract(module, fields):
        return {'maps': module.extract(make_input({'image': fields['image']}), train=False)}

    def propose(module, fields):
        assert rpn is not None
        outputs, anchors = module.propose(fields['maps'], train=False), module.anchors(*fields['image'].shape[1:3])
        boxes, _, valid = rpn.propose(outputs, anchors, fields, train=False)
        return {'proposals': boxes, 'proposals_valid': valid}

    def describe(module, fields):
        size = fields['image'].shape[1:3]
        return {'features': module.describe(fields['maps'], fields['proposals'], size, train=False)}

    def detect(module, fields):
        outputs, proposals, valid = module.score(fields['features']), fields['proposals'], fields['proposals_valid']
        return {'detections': settings.select(*regions.decode(outputs, proposals, valid, fields))}

    proposed = [] if rpn is None else [('proposals', compile_step(propose, 'maps'))]
    return [
        ('features', compile_step(extract)),
        *proposed,
        ('features', compile_step(describe, 'maps')),
        ('heads', compile_step(detect, 'features')),
    ]


def make_svm_steps(
    describe: Describe,
    classifier: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    regressor: Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray],
    selection: RegionSelection,
) -> list[Step]:
    """Makes the steps of R-CNN or SPP-net after the search of proposals.

    Args:
      describe: of `canon.tasks.detection.region_features`.
      classifier: from the layers of the regions to scores [R, C].
      regressor: from the boxes [R, 4] and the layers to the boxes of each class [R, C, 4].
      selection: of the detections.
    """

    def compute_features(fields):
        return {'layers': describe(fields['image'][0], _read_boxes(fields))}

    def detect(fields):
        layers = fields['layers']
        boxes = regressor(_read_boxes(fields), layers)
        found = selection.select(boxes, classifier(layers), fields['image'].shape[1:3])
        found['valid'] = np.ones(len(found['scores']), bool)
        return {'detections': {name: values[None] for name, values in found.items()}}

    return [('features', compute_features), ('heads', detect)]


def _read_boxes(fields: Mapping[str, Any]) -> np.ndarray:
    """Returns the proposals of the image without their padding, [R, 4]."""
    return fields['proposals'][0][fields['proposals_valid'][0]]
