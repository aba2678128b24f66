"""Axes that show a picture alone: grids of them are laid out and drawn in half of the time."""

from matplotlib.axes import Axes


def hide_frame(axes: Axes, title: str | None = None, **font) -> None:
    """Hides the frame and the ticks of axes, and puts a title right above them.

    Args:
      axes: that show a picture.
      title: None for none.
      **font: as of `Axes.set_title`.
    """
    axes.axis('off')
    # Hidden ticks are still made, and measured by a constrained layout.
    axes.set(xticks=[], yticks=[])
    if title is not None:
        # At a given height: without one, matplotlib measures both axes to place the title above their labels.
        axes.set_title(title, y=1.0, **font)
