"""Settings of rendering a radiance field, which `canon.rendering.radiance_fields` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from canon import named
from canon.errors import UsageError
from canon.ops import volume_rendering as vr

CASTING = ('points', 'intervals', 'cones')  # of NeRF, of grids and of mip-NeRF


@dataclass(frozen=True)
class RenderSettings:
    """Sampling and compositing of a radiance field. In a config these are the keys of `config.render`.

    Attributes:
      coarse: samples per ray of the first level.
      fine: samples per ray of the second level, drawn where the first found density; 0 renders the first level alone.
      shared: both levels share one network; by default each has its own.
      casting: 'points' evaluates the field at sampled points, and the fine network at the coarse points too (NeRF);
        'intervals' at the midpoints of intervals, the fine ones in place of the coarse; 'cones' over the conical
        frustums of the intervals (mip-NeRF).
      background: 'white', 'black', or 'random' (a colour per ray in training, white otherwise). None lets a task choose
        by whether its pictures have alpha.
      density_noise: standard deviation of the noise added to raw densities in training.
      jitter: draws samples at random in training; False always takes the even ones.
      ndc: maps rays to normalised device coordinates, for forward-facing captures.
      contract: maps unbounded space into the ball of radius 2 (`canon.ops.rays.contract`). Samples are even in distance
        up to twice the camera's distance from the origin, and in disparity beyond.
      box: (low, high), the cube to which rays are clipped, in addition to near and far.
      cells: resolution of an occupancy grid over the box; 0 is without. Rays are then rendered once, in those of the
        `coarse` intervals that lie in occupied cells. A sixteenth of the cells is updated per step.
      budget: samples per ray, on average over a batch, for which an occupancy grid leaves room. Rays that do not fit
        are left out of the step.
      thin: optical depth of an interval below which its cell counts as empty.
      decay: factor by which a cell's remembered density falls per update, unless the field is denser there.

    Raises:
      UsageError: settings exclude each other or are out of range.
    """

    coarse: int = 64
    fine: int = 128
    shared: bool = False
    casting: str = 'points'
    background: str | None = 'white'
    density_noise: named.NonNegative = 0.0
    jitter: bool = True
    ndc: bool = False
    contract: bool = False
    box: tuple[float, float] | None = None
    cells: Annotated[int, named.Range(0, 1024)] = 0
    budget: Annotated[int, named.Range(0)] = 16
    thin: named.NonNegative = 0.01
    decay: named.Probability = 0.95

    def __post_init__(self):
        if self.casting not in CASTING:
            raise UsageError(f'render.casting={self.casting!r} is not one of {", ".join(map(repr, CASTING))}')
        if self.coarse < 4 or self.fine < 0:
            raise UsageError(f'render.coarse={self.coarse} must be at least 4, render.fine={self.fine} at least 0')
        # The grid replaces the hierarchy: where samples go is known before the field is evaluated.
        if self.cells and (self.fine or self.casting != 'intervals' or not self.box):
            raise UsageError("render.cells needs render.casting='intervals', render.fine=0 and a render.box")
        # Each step updates one of 16 groups of cells, and 16 divides cells^3 only for multiples of 4.
        if self.cells and not (self.cells % 4 == 0 and self.budget > 0):
            raise UsageError(f'render.cells={self.cells} must be a multiple of 4, render.budget={self.budget} above 0')
        if self.casting == 'cones' and (self.ndc or self.contract):
            raise UsageError(
                "render.casting='cones' has no Gaussians for render.ndc or render.contract, which bend rays and space; "
                "set them to False, or render.casting='intervals'"
            )
        if self.ndc and self.contract:
            raise UsageError('render.ndc and render.contract are two ways to bound a scene; set one of them to False')
        if self.contract and self.box and (self.box[0] > -2 or self.box[1] < 2):
            raise UsageError(f'render.contract needs render.box=(-2, 2), larger or None; got {tuple(self.box)}')
        if self.background is not None:
            vr.background_colour(None, self.background, ())  # raises for an unknown name

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks in the parameters, one per level."""
        if not self.fine:
            return ('coarse',)
        return ('coarse', 'coarse' if self.shared else 'fine')

    @property
    def samples_per_ray(self) -> int:
        """Evaluations of the last level per ray."""
        return self.fine + self.coarse * (self.casting == 'points') if self.fine else self.coarse
