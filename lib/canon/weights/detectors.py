"""Chooses the published weights that a detector can start from: its own, or those of a classifier for its backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canon.weights import ssd
from canon.weights.faster_rcnn import CLASSIFIERS, region_reader
from canon.weights.published import reader

_BY_REGIONS = ('fast_rcnn.', 'faster_rcnn.')


def detector_reader(
    model: str, backbone: Mapping[str, Any] | None = None
) -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights into a detector.

    Args:
      model: the network, 'ssd.ssd300' or 'faster_rcnn.faster_rcnn'.
      backbone: its argument of that name, if it has one; a feature pyramid has a backbone of its own.

    Returns:
      A function as `canon.weights.reader` makes.
    """
    path, inner = '', backbone or {}
    while inner.get('backbone'):
        path, inner = f'{path}backbone/', inner['backbone']
    classifier = inner.get('name')
    if model in ssd.MODELS:
        return ssd.ssd_reader(model)
    if model.startswith(_BY_REGIONS) and (classifier or model in CLASSIFIERS):
        return region_reader(model, classifier)
    # A detector of any backbone has no published weights; its backbone may have those of a classifier.
    return reader(model) if classifier is None else reader(classifier, at=f'{path}backbone')
