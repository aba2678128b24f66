"""The detectors that a config names, and what differs between them besides their losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from canon import named
from canon.errors import UsageError
from canon.tasks.detection.evaluation import DetectionEvaluation, Predict, detection_evaluator
from canon.tasks.detection.figures import make_draw
from canon.tasks.detection.proposal_evaluation import proposal_evaluator
from canon.tasks.detection.regions import fast_rcnn_task, faster_rcnn_task, rpn_task
from canon.tasks.detection.single_shot import ssd_task, yolo_task
from canon.train import Evaluator, Task

SYSTEMS: dict[str, Callable] = {
    'ssd': ssd_task,
    'yolo': yolo_task,
    'fast_rcnn': fast_rcnn_task,
    'rpn': rpn_task,
    'faster_rcnn': faster_rcnn_task,
}
_WITHOUT_BACKGROUND = ('yolo',)  # its confidence takes the place of a class


def make_system(
    name: str | None, arguments: Mapping[str, Any], bound: Mapping[str, Any], where: str = 'system'
) -> Task:
    """Makes the task of a system of `SYSTEMS`.

    Args:
      name: of the system.
      arguments: of its own.
      bound: arguments that systems share, such as 'model'; those that this one does not take are left out.
      where: the section of `arguments`, for errors.

    Raises:
      UsageError: there is no such system or argument.
    """
    if name not in SYSTEMS:
        raise UsageError(f'no detector is called {where}.name={name!r}{named.suggest(str(name), SYSTEMS)}')
    shared = {key: value for key, value in bound.items() if named.accepts(SYSTEMS[name], key)}
    return named.call(SYSTEMS[name], {**shared, **arguments}, where)


def count_classes(system: str, num_classes: int) -> int:
    """Returns the classes of a model for data of that many: one more for systems with a class for the background."""
    return num_classes + (system not in _WITHOUT_BACKGROUND)


def check_num_classes(system: str, num_classes: int, names: Sequence[str]) -> None:
    """Raises UsageError unless a model of that many classes fits the data's classes; all but YOLO count background."""
    expected = count_classes(system, len(names))
    if num_classes != expected:
        background = ', one more for the background' if expected > len(names) else ''
        raise UsageError(
            f'model.num_classes={num_classes}, but the data have {len(names)} classes: set it to {expected}{background}'
        )


def find_priors(model: Any) -> Callable[[int, int], np.ndarray] | None:
    """Returns the function (height, width) -> boxes [A, 4] of a model with priors or anchors; None if it has none."""
    if hasattr(model, 'anchors'):
        return lambda height, width: np.concatenate(model.anchors(height, width))
    return getattr(model, 'priors', None)


def make_evaluator(
    system: str,
    predict: Predict,
    batches: Any,
    names: Sequence[str],
    settings: DetectionEvaluation,
    priors: Callable[[int, int], np.ndarray] | None = None,
    threshold: float = 0.5,
) -> Evaluator:
    """Makes the evaluator of a system: of proposals for an RPN, of detections otherwise.

    Args:
      system: of `SYSTEMS`.
      predict: as `Task.predict`.
      batches: finite data.
      names: of the classes.
      settings: of the measures of detections.
      priors: of the model, as of `find_priors`; their fit is drawn.
      threshold: IoU from which a prior is matched to an object in training.
    """
    if system == 'rpn':
        return proposal_evaluator(predict, batches)
    draw = make_draw(batches, names, settings, priors, threshold)
    return detection_evaluator(predict, batches, names, settings, draw)
