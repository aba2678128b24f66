"""Kalman filters of boxes with constant velocity: SORT's, DeepSORT's and the one of centres and sizes.

The state of a track is the mean of four coordinates and their velocities, and the covariance of both. The noise of all
three filters is diagonal and a velocity drives only its own coordinate, so the covariance of the coordinates with each
other remains exactly zero: a filter of eight dimensions is four independent ones of two. What other implementations
do with 8 x 8 matrices and an inverse per track is elementwise arithmetic here, over any leading axes, on numpy arrays
and JAX arrays alike; tests compare it with the matrices.

Per coordinate, with F = [[1, 1], [0, 1]] and H = [1, 0]:

    predict: x <- F x, P <- F P F' + Q
    correct: S = P_00 + R, K = (P_00, P_01) / S, x <- x + K (z - x_0), P <- P - K K' S

    >>> import numpy as np
    >>> model = sort_motion()
    >>> track = predict(model, initiate(model, np.array([10.0, 20.0, 30.0, 60.0])))
    >>> track = update(model, track, np.array([14.0, 20.0, 34.0, 60.0]))
    >>> np.round(to_boxes(model, track)).tolist(), np.round(track.mean[1, :2], 1).tolist()
    ([14.0, 20.0, 34.0, 60.0], [4.0, 0.0])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from canon.tracking.arrays import Array, array_module, mix_columns, replace_last, select_rows, stack_parts

CHI2_95 = {1: 3.8415, 2: 5.9915, 3: 7.8147, 4: 9.4877}  # the 0.95 quantile of the chi-squared distribution, by degrees

# Corners (x0, y0, x1, y1) to centre and size (x, y, w, h), and back.
_CENTER_SIZE = np.array([[0.5, 0, -1, 0], [0, 0.5, 0, -1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]])
_CORNERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])
_AREA_VELOCITY = (np.arange(2)[:, None] == 1) & (np.arange(4) == 2)  # in the mean of SORT's filter


class TrackEstimate(NamedTuple):
    """Gaussian estimates of tracks.

    Attributes:
      mean: [..., 2, 4], coordinates and their velocities per frame.
      covariance: [..., 3, 4], of each coordinate: its variance, the covariance with its velocity, that one's variance.
    """

    mean: Array
    covariance: Array


class MotionModel(NamedTuple):
    """The coordinates and the noise of a filter, all variances diagonal.

    Attributes:
      to_measurement: corner boxes [..., 4] to the coordinates [..., 4] that are filtered.
      to_corners: the inverse.
      initial_variance: measurement to the variances (coordinates, velocities) of a new track, each [..., 4].
      process_variance: mean [..., 2, 4] to the variances (coordinates, velocities) that one frame adds.
      measurement_variance: mean [..., 2, 4] to the variance of a detection, [..., 4].
      constrain: mean [..., 2, 4] to the one that is predicted from.
    """

    to_measurement: Callable[[Array], Array]
    to_corners: Callable[[Array], Array]
    initial_variance: Callable[[Array], tuple[Array, Array]]
    process_variance: Callable[[Array], tuple[Array, Array]]
    measurement_variance: Callable[[Array], Array]
    constrain: Callable[[Array], Array] = lambda mean: mean


def initiate(model: MotionModel, boxes: Array) -> TrackEstimate:
    """Starts tracks at corner boxes [..., 4], at rest."""
    xp = array_module(boxes)
    z = model.to_measurement(boxes)
    position, velocity = model.initial_variance(z)
    zero = xp.zeros(z.shape, z.dtype)
    return TrackEstimate(stack_parts([z, zero], -2), stack_parts([position + zero, zero, velocity + zero], -2))


def predict(model: MotionModel, track: TrackEstimate) -> TrackEstimate:
    """Predicts tracks one frame ahead."""
    mean = model.constrain(track.mean)
    position_noise, velocity_noise = model.process_variance(mean)
    if array_module(mean) is np:
        return _predict_in_place(mean.copy('K'), track.covariance.copy('K'), position_noise, velocity_noise)
    position, cross, velocity = (track.covariance[..., i, :] for i in range(3))
    moved = cross + velocity
    return TrackEstimate(
        stack_parts([mean[..., 0, :] + mean[..., 1, :], mean[..., 1, :]], -2),
        stack_parts([position + cross + moved + position_noise, moved, velocity + velocity_noise], -2),
    )


def _predict_in_place(
    mean: np.ndarray, covariance: np.ndarray, position_noise: np.ndarray, velocity_noise: np.ndarray
) -> TrackEstimate:
    """Predicts as `predict` does, with its roundings and without a new array for each part."""
    position, cross, velocity = (covariance[..., i, :] for i in range(3))
    mean[..., 0, :] += mean[..., 1, :]
    position += cross
    cross += velocity
    position += cross
    position += position_noise
    velocity += velocity_noise
    return TrackEstimate(mean, covariance)


def update(model: MotionModel, track: TrackEstimate, boxes: Array, observed: Array | None = None) -> TrackEstimate:
    """Corrects predicted tracks by detections.

    Args:
      model: of motion.
      track: N predictions.
      boxes: corner boxes [N, 4].
      observed: bool [N]; the other tracks remain as predicted. None: all.
    """
    return correct(model, track, model.to_measurement(boxes), observed)


def correct(
    model: MotionModel, track: TrackEstimate, measurement: Array, observed: Array | None = None
) -> TrackEstimate:
    """Corrects predicted tracks as `update` does, by coordinates of the filter [N, 4] instead of boxes."""
    position, cross, velocity = (track.covariance[..., i, :] for i in range(3))
    noise = model.measurement_variance(track.mean)
    total = position + noise
    gain = track.covariance[..., :2, :] / total[..., None, :]
    surprise = measurement - track.mean[..., 0, :]
    mean = track.mean + gain * surprise[..., None, :]
    # The first two are products and not differences, which would cancel where the detection is exact: P_00 R / S.
    shrunk = track.covariance[..., :2, :] * (noise / total)[..., None, :]
    covariance = stack_parts([shrunk[..., 0, :], shrunk[..., 1, :], velocity - gain[..., 1, :] * cross], -2)
    if observed is None:
        return TrackEstimate(mean, covariance)
    return TrackEstimate(select_rows(observed, mean, track.mean), select_rows(observed, covariance, track.covariance))


def to_boxes(model: MotionModel, track: TrackEstimate) -> Array:
    """Returns the corner boxes [..., 4] of tracks; NaN where the estimate is not that of a box."""
    return model.to_corners(track.mean[..., 0, :])


def gating_distance(model: MotionModel, track: TrackEstimate, boxes: Array, position_only: bool = False) -> Array:
    """Computes the squared Mahalanobis distance of detections to predictions: Wojke et al. 2017, eq. 1.

    Args:
      model: of motion.
      track: N predictions.
      boxes: of M detections, [M, 4].
      position_only: measures the first two coordinates alone, the centre.

    Returns:
      [N, M]. Gates: `CHI2_95[4]`, or `CHI2_95[2]` of positions.
    """
    total = track.covariance[..., 0, :] + model.measurement_variance(track.mean)
    surprise = model.to_measurement(boxes)[..., None, :, :] - track.mean[..., 0, None, :]
    squares = surprise**2 / total[..., None, :]
    return (squares[..., :2] if position_only else squares).sum(-1)


def smooth(filtered: Sequence[TrackEstimate], predicted: Sequence[TrackEstimate]) -> list[TrackEstimate]:
    """Smooths filtered tracks backwards in time: Rauch, Tung and Striebel 1965.

    x_t <- x_t + C (x_{t+1} - F x_t) and P_t <- P_t + C (P_{t+1} - P^-_{t+1}) C', where P^- is the predicted covariance
    and C = P_t F' (P^-_{t+1})^-1. The predictions of a linear filter are meant: a `constrain` that acts is not undone.

    Args:
      filtered: T estimates, after the updates.
      predicted: T predictions of the same frames; the first is not read.

    Returns:
      T estimates.
    """
    smoothed = list(filtered)
    for t in range(len(smoothed) - 2, -1, -1):
        ahead, next_ = predicted[t + 1], smoothed[t + 1]
        xp = array_module(ahead.mean)
        p, c, v = (filtered[t].covariance[..., i, :] for i in range(3))
        pp, pc, pv = (ahead.covariance[..., i, :] for i in range(3))
        determinant = pp * pv - pc * pc
        # SORT's aspect ratio has no velocity, so that its 2 x 2 covariance has no inverse: that of the coordinate acts.
        singular = determinant <= 0
        safe = xp.where(singular, 1, determinant)
        i00, i01, i11 = xp.where(singular, 1 / pp, pv / safe), xp.where(singular, 0, -pc / safe), pp / safe
        i11 = xp.where(singular, 0, i11)
        a00, a01, a10, a11 = p + c, c, c + v, v  # P_t F'
        g00, g01 = a00 * i00 + a01 * i01, a00 * i01 + a01 * i11
        g10, g11 = a10 * i00 + a11 * i01, a10 * i01 + a11 * i11
        shift = next_.mean - ahead.mean
        s0, s1 = shift[..., 0, :], shift[..., 1, :]
        dp, dc, dv = ((next_.covariance - ahead.covariance)[..., i, :] for i in range(3))
        h00, h01, h10, h11 = g00 * dp + g01 * dc, g00 * dc + g01 * dv, g10 * dp + g11 * dc, g10 * dc + g11 * dv
        smoothed[t] = TrackEstimate(
            filtered[t].mean + stack_parts([g00 * s0 + g01 * s1, g10 * s0 + g11 * s1], -2),
            filtered[t].covariance
            + stack_parts([h00 * g00 + h01 * g01, h00 * g10 + h01 * g11, h10 * g10 + h11 * g11], -2),
        )
    return smoothed


def sort_motion(
    measurement: Sequence[float] = (1, 1, 10, 10),
    process: Sequence[float] = (1, 1, 1, 1),
    velocity_process: Sequence[float] = (0.01, 0.01, 1e-4, 0),
    initial: Sequence[float] = (10, 10, 10, 10),
    initial_velocity: Sequence[float] = (1e4, 1e4, 1e4, 0),
) -> MotionModel:
    """Filters the centre, the area s and the aspect ratio r, which has no velocity: Bewley et al. 2016, eq. 1.

    An area that would become negative keeps its value: its velocity is set to 0 before the prediction.

    Args:
      measurement: variances of a detection's (x, y, s, r).
      process: variances that a frame adds to them.
      velocity_process: those that it adds to the velocities; 0 for r.
      initial: variances of a new track.
      initial_velocity: of its velocities, which no detection shows; 0 for r.
    """

    first, added, moved, started, speed = (
        np.asarray(values, np.float64) for values in (measurement, process, velocity_process, initial, initial_velocity)
    )

    def constrain(mean):
        xp = array_module(mean)
        area = mean[..., 0, 2] + mean[..., 1, 2]
        if xp is np and area.size and area.min() > 0:
            return mean
        return xp.where((area <= 0)[..., None, None] & _AREA_VELOCITY, 0, mean)

    def constant(*variances):
        return lambda x: tuple(v.astype(x.dtype, copy=False) for v in variances)

    return MotionModel(
        to_measurement=_to_area,
        to_corners=_from_area,
        initial_variance=constant(started, speed),
        process_variance=constant(added, moved),
        measurement_variance=lambda mean: first.astype(mean.dtype, copy=False),
        constrain=constrain,
    )


def deep_sort_motion(
    position: float = 1 / 20,
    velocity: float = 1 / 160,
    aspect: float = 1e-2,
    aspect_velocity: float = 1e-5,
    measured_aspect: float = 1e-1,
) -> MotionModel:
    """Filters the centre, the aspect ratio w / h and the height, with noise in proportion to the height.

    DeepSORT's (Wojke et al. 2017, section 2.1) and ByteTrack's. A new track has twice the deviation of coordinates and
    ten times that of velocities.

    Args:
      position: standard deviation of x, y and h per height, of detections and per frame.
      velocity: of their velocities, per height and frame.
      aspect: of the aspect ratio per frame, and of a new track.
      aspect_velocity: of its velocity.
      measured_aspect: of a detection's aspect ratio.
    """

    def scale(height, of_height, of_aspect):
        xp = array_module(height)
        size = height * of_height
        return stack_parts([size, size, xp.full_like(size, of_aspect), size], -1) ** 2

    def process(mean):
        height = mean[..., 0, 3]
        return scale(height, position, aspect), scale(height, velocity, aspect_velocity)

    return MotionModel(
        to_measurement=_to_aspect,
        to_corners=_from_aspect,
        initial_variance=lambda z: (
            scale(z[..., 3], 2 * position, aspect), scale(z[..., 3], 10 * velocity, aspect_velocity),
        ),
        process_variance=process,
        measurement_variance=lambda mean: scale(mean[..., 0, 3], position, measured_aspect),
    )  # fmt: skip


def center_size_motion(position: float = 1 / 20, velocity: float = 1 / 160) -> MotionModel:
    """Filters the centre, the width and the height, with noise in proportion to both: Aharon et al. 2022, eq. 3.

    Args:
      position: standard deviation of coordinates per width (x, w) or height (y, h), of detections and per frame.
      velocity: of velocities, per frame.
    """

    def scale(z, factor):
        return (z[..., [2, 3, 2, 3]] * factor) ** 2

    return MotionModel(
        to_measurement=_to_center_size,
        to_corners=_from_center_size,
        initial_variance=lambda z: (scale(z, 2 * position), scale(z, 10 * velocity)),
        process_variance=lambda mean: (scale(mean[..., 0, :], position), scale(mean[..., 0, :], velocity)),
        measurement_variance=lambda mean: scale(mean[..., 0, :], position),
    )


def _to_center_size(boxes):
    return mix_columns(boxes, _CENTER_SIZE)


def _from_center_size(z):
    return mix_columns(z, _CORNERS)


def _to_area(boxes):
    z = _to_center_size(boxes)
    width, height = z[..., 2], z[..., 3]
    return replace_last(z, width * height, width / array_module(z).where(height > 0, height, 1))


def _from_area(z):
    area, aspect = z[..., 2], z[..., 3]
    with np.errstate(invalid='ignore', divide='ignore'):  # what has no box becomes NaN, which trackers look for
        width = array_module(z).sqrt(area * aspect)
        return _from_center_size(replace_last(z, width, area / width))


def _to_aspect(boxes):
    z = _to_center_size(boxes)
    width, height = z[..., 2], z[..., 3]
    return replace_last(z, width / array_module(z).where(height > 0, height, 1), height)


def _from_aspect(z):
    aspect, height = z[..., 2], z[..., 3]
    return _from_center_size(replace_last(z, aspect * height, height))
