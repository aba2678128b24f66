"""Pictures of shapes: meshes under a lamp, and slices through fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_LAMP = np.array([0.35, -0.55, 0.76])


def shaded(found: Sequence[tuple[str, np.ndarray, np.ndarray]], half: float, columns: int = 4) -> Figure:
    """Meshes (title, vertices [V, 3], faces [F, 3]) in the cube [-half, half]^3, seen from above; z is up."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    columns = max(min(columns, len(found)), 1)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * rows), layout='constrained')
    for place, (title, vertices, faces) in enumerate(found, 1):
        axes = figure.add_subplot(rows, columns, place, projection='3d')
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
        axes.set(xlim=(-half, half), ylim=(-half, half), zlim=(-half, half))
        axes.set_box_aspect((1, 1, 1), zoom=1.5)
        axes.view_init(elev=25, azim=-55)
        if len(faces):
            corners = np.asarray(vertices)[np.asarray(faces)]
            colours = _lit(corners)
            axes.add_collection3d(Poly3DCollection(corners, facecolors=colours, edgecolors=colours, lw=0.3))
    return figure


def _lit(corners: np.ndarray) -> np.ndarray:
    """Colours [F, 3]: clay under a lamp and a sky (Lambert)."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = 0.35 + 0.15 * normals[:, 2] + 0.5 * np.maximum(normals @ _LAMP, 0)
    return np.clip(light[:, None] * np.array([0.62, 0.78, 0.95]) * 1.1, 0, 1)


def slices(found: Sequence[tuple[str, np.ndarray]], half: float, columns: int = 4) -> Figure:
    """Fields (title, values [n, n] over x and y of [-half, half]^2): blue outside, red inside, the surface in black.

    Of each the colours reach the greatest size of its values within; so distances and logits can stand side by side.
    """
    columns = max(min(columns, len(found)), 1)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout='constrained')
    for place, (title, values) in enumerate(found, 1):
        axes = figure.add_subplot(rows, columns, place)
        _slice(axes, np.asarray(values), half)
        axes.set_title(title, fontsize=8)
    return figure


def _slice(axes: Axes, values: np.ndarray, half: float) -> None:
    within = np.abs(values[values < 0])
    reach = float(within.max()) if within.size else max(float(np.abs(values).max()), 1e-6)
    line = np.linspace(-half, half, len(values))
    axes.imshow(values.T, origin='lower', extent=(-half, half, -half, half), cmap='RdBu', vmin=-reach, vmax=reach)
    axes.contour(line, line, values.T, np.arange(-8, 9) * (reach / 4), colors='w', linewidths=0.4)
    if values.min() < 0 < values.max():
        axes.contour(line, line, values.T, [0], colors='k', linewidths=1.2)
    axes.axis('off')
