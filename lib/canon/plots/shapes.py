"""Figures of shapes: shaded meshes, and slices through fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_LAMP = np.array([0.35, -0.55, 0.76])  # unit vector towards the light
_COLOUR = np.array([0.62, 0.78, 0.95])


def draw_meshes(meshes: Sequence[tuple[str, np.ndarray, np.ndarray]], half: float, columns: int = 4) -> Figure:
    """Draws shaded meshes in a grid, seen from above; z is up.

    Args:
      meshes: (title, vertices [V, 3], faces [F, 3]) of each panel.
      half: half of the side of the cube [-half, half]^3 that is shown.
      columns: of the grid.
    """
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    columns = max(min(columns, len(meshes)), 1)
    rows = -(-len(meshes) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * rows), layout='constrained')
    for panel, (title, vertices, faces) in enumerate(meshes, 1):
        axes = figure.add_subplot(rows, columns, panel, projection='3d')
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
        axes.set(xlim=(-half, half), ylim=(-half, half), zlim=(-half, half))
        axes.set_box_aspect((1, 1, 1), zoom=1.5)
        axes.view_init(elev=25, azim=-55)
        if len(faces):
            triangles = np.asarray(vertices)[np.asarray(faces)]
            colours = _shade(triangles)
            # Edges in the colours of the faces hide the seams of antialiasing between them.
            axes.add_collection3d(Poly3DCollection(triangles, facecolors=colours, edgecolors=colours, lw=0.3))
    return figure


def _shade(triangles: np.ndarray) -> np.ndarray:
    """Returns colours [F, 3] of triangles [F, 3, 3] under a lamp and a brighter sky (Lambert)."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = 0.35 + 0.15 * normals[:, 2] + 0.5 * np.maximum(normals @ _LAMP, 0)
    return np.clip(light[:, None] * _COLOUR * 1.1, 0, 1)


def draw_slices(fields: Sequence[tuple[str, np.ndarray]], half: float, columns: int = 4) -> Figure:
    """Draws slices through fields: blue outside, red inside, the surface in black.

    The colours of each panel span the values inside the shape, so that distances and logits can be compared.

    Args:
      fields: (title, values [n, n] over x and y of [-half, half]^2) of each panel.
      half: half of the side of the square.
      columns: of the grid.
    """
    columns = max(min(columns, len(fields)), 1)
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout='constrained')
    for panel, (title, values) in enumerate(fields, 1):
        axes = figure.add_subplot(rows, columns, panel)
        _draw_slice(axes, np.asarray(values), half)
        axes.set_title(title, fontsize=8)
    return figure


def _draw_slice(axes: Axes, values: np.ndarray, half: float) -> None:
    # Values outside are unbounded; the scale of those inside keeps the neighbourhood of the surface visible.
    inside = np.abs(values[values < 0])
    reach = float(inside.max()) if inside.size else max(float(np.abs(values).max()), 1e-6)
    line = np.linspace(-half, half, len(values))
    axes.imshow(values.T, origin='lower', extent=(-half, half, -half, half), cmap='RdBu', vmin=-reach, vmax=reach)
    axes.contour(line, line, values.T, np.arange(-8, 9) * (reach / 4), colors='w', linewidths=0.4)
    if values.min() < 0 < values.max():
        axes.contour(line, line, values.T, [0], colors='k', linewidths=1.2)
    axes.axis('off')
