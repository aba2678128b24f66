"""Volumes: a volume, or its transfer function, recovered from pictures of it; and pictures of any volume, as a command.

    python -m experiments.volume_rendering [FILE] [--output DIR] [--shape X,Y,Z --dtype T --spacing X,Y,Z --frame N]

writes modes.png (emission and absorption, maximum, X-ray, lit surface) and orbit.gif of a .npy, NIfTI or raw volume, or
of the embedded phantom without FILE. The same on every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, optim, plots
from canon.camera import Camera
from canon.data import Generated
from canon.data.scenes import framing, traced, volumes
from canon.errors import UsageError
from canon.metrics import Mean
from canon.metrics.views import psnr
from canon.named import Count, NonNegative, Positive, Probability, Range
from canon.ops import map_in_chunks, rays
from canon.ops import volumes as casting
from canon.ops.volumes import Beam
from canon.train import Evaluator, Experiment, Task, lengths
from launch import tools

MODES = {'emission': 'emission and absorption', 'maximum': 'maximum', 'xray': 'X-ray', 'surface': 'lit surface'}
LEARNT = ('volume', 'table')
# The head: skin and skull hardly seen, the brain a haze, what is denser in it warm. (value, red, green, blue, opacity)
HEAD = (
    (0.0, 0.2, 0.4, 0.8, 0.0),
    (0.12, 0.2, 0.4, 0.8, 0.0),
    (0.2, 0.3, 0.55, 0.9, 0.02),
    (0.26, 0.95, 0.5, 0.15, 0.03),
    (0.3, 1.0, 0.45, 0.1, 0.5),
    (0.4, 0.9, 0.85, 0.75, 0.01),
    (1.0, 0.95, 0.92, 0.85, 0.035),
)
# Anything else, from its darkest value to its brightest.
ANY = (
    (0.0, 0.1, 0.1, 0.3, 0.0),
    (0.25, 0.2, 0.3, 0.6, 0.0),
    (0.45, 0.75, 0.35, 0.25, 0.04),
    (0.7, 0.95, 0.75, 0.5, 0.25),
    (1.0, 1.0, 1.0, 0.95, 0.8),
)
_CHUNK = 4096  # rays that are cast at a time, where pictures are made
_OPAQUE = 1e-3  # what is let through at the most when a ray is ended early


@dataclass(frozen=True)
class Rendering:
    """config.render: how a volume is seen.

    mode: of MODES; 'xray' and 'emission' can be learnt from. count: intervals of a ray. reference: the length that
    opacities of the table are of; a volume's longest side is 2. table: rows (value, red, green, blue, opacity), values
    from 0, the volume's least, to 1, its largest. absorption: of X-rays, by a value of 1 over a length of 1.
    """

    mode: str = 'emission'
    count: Annotated[int, Range(2)] = 128
    reference: Positive = 0.05
    table: tuple[tuple[float, ...], ...] = ANY
    absorption: Positive = 1.0

    def __post_init__(self):
        if self.mode not in MODES:
            raise UsageError(
                f'render.mode={self.mode!r} is none of {", ".join(MODES)}{named.suggest(self.mode, MODES)}'
            )
        control(self.table, 2)


@dataclass(frozen=True)
class Model:
    """config.model: what is learnt. learn: 'volume', 'table' (the transfer function) or both; the rest is told.

    vertices: of the learnt volume along its longest side. rows: of the learnt table. start: of every voxel.
    """

    learn: tuple[str, ...] = ('volume',)
    vertices: Annotated[int, Range(2, 512)] = 48
    rows: Annotated[int, Range(2)] = 32
    start: Probability = 0.1

    def __post_init__(self):
        for name in self.learn:
            if name not in LEARNT:
                raise UsageError(f'model.learn has {name!r}{named.suggest(name, LEARNT)}')
        if not self.learn:
            raise UsageError(f'model.learn is empty; it has {" or ".join(LEARNT)}, or both')


@dataclass(frozen=True)
class Loss:
    """config.loss: variation: the weight of the total variation of a learnt volume."""

    variation: NonNegative = 0.0


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals: how many views, of which split of `traced.places`."""

    split: str = 'test'
    views: Count = 4


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.render, config.loss and config.tx -> a volume that is recovered."""
    how, model = _how(config), named.call(Model, dict(config.model), 'model')
    if how.mode not in ('xray', 'emission'):
        raise UsageError(f'render.mode={how.mode!r} cannot be learnt from; xray and emission can')
    if how.mode == 'xray' and 'table' in model.learn:
        raise UsageError("model.learn has 'table', and X-rays see none: set render.mode=emission")
    for key in ('views', 'picture', 'batch_size'):
        named.check(config.data[key], Count, f'data.{key}')
    fine = config.data.get('fine', 2)
    named.check(fine, Count, 'data.fine')
    truth = Truth(_volume(config), how, fine)
    d, part = config.data, (jax.process_index(), jax.process_count())
    camera = traced.pinhole(d.picture)
    origins, ways, seen = _pixels(truth, camera, 'train', d.views, config.seed)

    def batch(step):
        at = np.random.default_rng((6, config.seed, step)).integers(len(seen), size=d.batch_size)[part[0] :: part[1]]
        return {'origin': origins[at], 'way': ways[at], 'seen': seen[at]}

    loss = named.call(Loss, dict(config.get('loss', {})), 'loss')
    task = recovery(truth, how, model, loss.variation)
    evals = {}
    for name in sorted(d.evals):
        spec = named.call(Spec, dict(d.evals[name]), f'data.evals.{name}')
        evals[name] = held_out(task, truth, camera, spec.split, spec.views, config.seed)
    train = Generated(batch, d.batch_size, len(seen))
    config = lengths.resolve(config, d.batch_size, len(seen))
    about = dict(size=list(truth.values.shape), views=d.views)
    return Experiment(task, optim.make(config.tx), train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """The phantom, small, in place of a file that is not at hand."""
    if config.data.get('path'):
        with config.unlocked():
            config.data.path, config.data.name, config.data.source = None, 'shepp_logan', dict(size=8)
    return config


def _how(config: ConfigDict) -> Rendering:
    return named.call(Rendering, dict(config.get('render', {})), 'render')


_FILE = ('shape', 'dtype', 'spacing', 'frame', 'fill')


def _volume(config: ConfigDict, path: str | None = None) -> volumes.Volume:
    """The volume of config.data, or of another file with its shape, dtype, spacing, frame and fill."""
    path = config.data.get('path') if path is None else path
    if path == '':
        raise UsageError('the path of a volume is empty; name a file, or leave data.path None for data.name')
    if path is None:
        return volumes.load(config.data.name, **named.to_plain(config.data.get('source', {})))
    told = {key: config.data[key] for key in _FILE if config.data.get(key) is not None}
    return volumes.load('file', path=path, **named.to_plain(told))


# --- the truth ----------------------------------------------------------------------------------------------------


class Truth:
    """A volume, its values from 0 to 1, and what it looks like: X-rays exactly where their integrals are known, and all
    else in `fine` times as many intervals as are learnt with."""

    def __init__(self, volume: volumes.Volume, how: Rendering, fine: int = 2):
        self.values, self.half, self.how = volume.scaled, volume.half.astype(np.float32), how
        self.integrals = volume.integrals if how.mode == 'xray' else None
        self.table = control(how.table)
        given = jnp.asarray(self.values), jnp.asarray(self.table), jnp.asarray(self.half)
        cast = partial(image, *given, how=how, count=fine * how.count)
        self._cast = jax.jit(lambda *ray: map_in_chunks(lambda part: cast(*part), ray, _CHUNK))

    def __call__(self, origins: np.ndarray, ways: np.ndarray) -> np.ndarray:
        """What rays [P, 3] see, float32 [P, C]."""
        if self.integrals:
            return np.exp(-self.how.absorption * self.integrals(origins, ways))[:, None].astype(np.float32)
        return np.asarray(self._cast(origins, ways))

    def on(self, shape: Sequence[int]) -> np.ndarray:
        """Its values on another grid [X, Y, Z] over the same box."""
        from scipy.ndimage import map_coordinates

        ends = (np.array(self.values.shape) - 1).tolist()
        places = np.meshgrid(*(np.linspace(0, end, n) for end, n in zip(ends, shape, strict=True)), indexing='ij')
        return map_coordinates(self.values, places, order=1, mode='nearest')


def control(points: Sequence[Sequence[float]], rows: int = 256) -> np.ndarray:
    """A table float32 [rows, 4] through rows (value in 0..1, red, green, blue, opacity), linear in between."""
    told = np.asarray(points, float)
    if told.ndim != 2 or told.shape[1] != 5 or (np.diff(told[:, 0]) < 0).any() or told.min() < 0 or told.max() > 1:
        raise UsageError('render.table has rows (value, red, green, blue, opacity) in 0..1, the values rising')
    at = np.linspace(0, 1, rows)
    return np.stack([np.interp(at, told[:, 0], told[:, i]) for i in range(1, 5)], -1).astype(np.float32)


def _pixels(truth: Truth, camera: Camera, split: str, views: int, seed: int):
    """(origins, ways, what they see) of all pixels of all views, view by view, float32 [P, ..]."""
    poses, _ = traced.places(split, views, seed)
    at = jnp.asarray(rays.pixel_grid(camera)).reshape(-1, 2)
    cast = jax.vmap(lambda pose: rays.generate_rays(camera, pose, at))
    origins, ways = (np.asarray(x).reshape(-1, 3) for x in cast(jnp.asarray(poses)))
    return origins, ways, truth(origins, ways)


# --- what is learnt -----------------------------------------------------------------------------------------------


def image(values, table, half, origins, ways, how: Rendering, count: int, stop: float | None = None) -> jax.Array:
    """What rays [P, 3] see of values [X, Y, Z] in the box [-half, half]: [P, 1] X-rays, [P, 3] colours on white."""
    beam = Beam(origins, ways, *rays.intersect_box(origins, ways, -half, half))
    if how.mode == 'xray':
        return casting.transmitted(how.absorption * casting.line_integral(values, beam, count, -half, half))[:, None]
    shade = casting.medium(values, table, how.reference, -half, half)
    return casting.gather(shade, beam, count, stop, background=1.0).colour


def recovery(truth: Truth, how: Rendering, model: Model, variation: float = 0.0) -> Task:
    """The squared error of what rays see, and `variation` times the total variation of a learnt volume.

    `predict` gives {'seen' [P, C]}. A learnt table is kept as logits.
    """
    shape = tuple(max(2, round(1 + (model.vertices - 1) * h)) for h in truth.half.tolist())

    def init(key, batch):
        made = {'volume': jnp.full(shape, model.start), 'table': jnp.zeros((model.rows, 4)) - 1}
        return {'params': {name: made[name] for name in model.learn}}

    def predict(params, mutable, batch):
        values, table = parts(params, truth)
        return {'seen': image(values, table, jnp.asarray(truth.half), batch['origin'], batch['way'], how, how.count)}

    def loss(params, mutable, batch, at):
        error = jnp.square(predict(params, mutable, batch)['seen'] - batch['seen']).mean(-1)
        count, total = len(error), error.sum()
        if variation and 'volume' in params:
            total += variation * count * casting.total_variation(params['volume'])
        return Mean(total, jnp.float32(count)), (mutable, {'mse': Mean.of(error)})

    return Task(init, loss, predict)


def parts(params: Mapping[str, jax.Array], truth: Truth) -> tuple[jax.Array, jax.Array]:
    """(values, table): what is learnt, and what is told where it is not."""
    table = jax.nn.sigmoid(params['table']) if 'table' in params else jnp.asarray(truth.table)
    return params.get('volume', jnp.asarray(truth.values)), table


def held_out(task: Task, truth: Truth, camera: Camera, split: str, views: int, seed: int) -> Evaluator:
    """psnr of views, the mean of each one's; volume_psnr and volume_rmse of the voxels against the truth on their grid;
    table_error: the mean distance of opacities, and of colours times opacities, over the voxels' values."""
    pixels = _pixels(truth, camera, split, views, seed)
    origins, ways, seen = (x.reshape(views, -1, x.shape[-1]) for x in pixels)
    size = camera.size
    data = Generated(lambda i: {'origin': origins[i], 'way': ways[i], 'seen': seen[i]}, len(origins[0]), views, views)

    def measure(params, mutable, batch):
        found = task.predict(params, mutable, batch)['seen'].reshape(1, *size, -1)
        told = {'psnr': psnr(jnp.clip(found, 0, 1), batch['seen'].reshape(found.shape))}
        values, table = parts(params, truth)
        if 'volume' in params:
            told['volume_mse'] = Mean.of(jnp.square(values - truth.on(values.shape)))
        if 'table' in params:
            rows = np.linspace(0, 1, len(table), dtype=np.float32)
            often = np.histogram(truth.values, len(rows), (0, 1))[0].astype(np.float32)
            wanted = casting.transfer(jnp.asarray(truth.table), jnp.asarray(rows))
            apart = jnp.abs(_weighed(table) - _weighed(wanted)).mean(-1)
            told['table_error'] = Mean((apart * often).sum(), often.sum())
        return told

    def finish(sums):
        told = {name: mean.value for name, mean in sums.items()}
        if 'volume_mse' in told:
            mse = told.pop('volume_mse')
            told |= {'volume_psnr': -10 * np.log10(mse), 'volume_rmse': np.sqrt(mse)}
        return told

    def pictures(params, mutable, sums):
        run = jax.jit(task.predict)
        shown, titles = [], []
        for i in range(min(views, 3)):
            found = np.asarray(run(params, mutable, data[i])['seen']).reshape(*size, -1)
            shown += [np.broadcast_to(x, (*size, 3)) for x in (seen[i].reshape(*size, -1), found)]
            titles += ['truth', 'recovered']
        figures = {'views': plots.gallery(_bytes(np.stack(shown)), titles, columns=6)}
        if 'volume' in params:
            figures['slices'] = slices(truth.on(params['volume'].shape), np.asarray(params['volume']))
        if 'table' in params:
            figures['table'] = functions(truth.table, np.asarray(jax.nn.sigmoid(params['table'])))
        return figures

    return Evaluator(data, measure, finish, pictures)


def _weighed(table: jax.Array) -> jax.Array:
    """Colours times opacity, and opacity: a colour of what cannot be seen does not count."""
    return jnp.concatenate((table[:, :3] * table[:, 3:], table[:, 3:]), -1)


def slices(truth: np.ndarray, found: np.ndarray) -> Figure:
    """The middle planes across each axis, of two volumes of one shape."""
    shown, titles = [], []
    for name, volume in (('truth', truth), ('recovered', found)):
        for axis, label in enumerate('xyz'):
            plane = np.take(volume, volume.shape[axis] // 2, axis).T[::-1]
            shown.append(np.pad(plane, [(0, max(volume.shape) - n) for n in plane.shape]))
            titles.append(f'{name}, across {label}')
    return plots.gallery(_bytes(np.stack(shown)[..., None]), titles, columns=3)


def functions(truth: np.ndarray, found: np.ndarray) -> Figure:
    """Two transfer functions, line by line: the truth dashed."""
    figure = Figure(figsize=(6, 3), layout='constrained')
    axes = figure.add_subplot(xlabel='value', ylim=(-0.03, 1.03), title='transfer function: truth dashed')
    for channel, (name, colour) in enumerate(zip(('red', 'green', 'blue', 'opacity'), 'rgbk', strict=True)):
        axes.plot(np.linspace(0, 1, len(truth)), truth[:, channel], colour + '--', linewidth=1)
        axes.plot(np.linspace(0, 1, len(found)), found[:, channel], colour, label=name)
    axes.legend(fontsize=8)
    return figure


def _bytes(pictures: np.ndarray) -> np.ndarray:
    return (np.clip(pictures, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- pictures of any volume ---------------------------------------------------------------------------------------


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Pictures of a volume in all modes, and an orbit: of a file, or of what the run has learnt (--input=learnt)."""
    how = _how(config)
    truth = Truth(_volume(config), how)
    values, table = (np.asarray(x) for x in parts(params, truth))
    if source == 'learnt':
        return pictures(values, truth.half, output, table, name='learnt')
    volume = _volume(config, source)
    # The table that the config has is for its own volume.
    return pictures(volume.scaled, volume.half, output, table if 'table' in params else None, name=volume.name)


def pictures(
    values: np.ndarray,
    half: np.ndarray,
    output: str | Path,
    table: np.ndarray | None = None,
    size: int = 256,
    frames: int = 36,
    level: float | None = None,
    name: str = '',
) -> str:
    """Writes modes.png, of `size` pixels a mode, and orbit.gif about the volume in half of it; says where.

    values: [X, Y, Z] in 0..1. level: of the lit surface; Otsu's threshold without one.
    """
    if size < 4 or frames < 1:
        raise UsageError(f'size={size} >= 4 pixels and frames={frames} >= 1 are wanted')
    from skimage.filters import threshold_otsu

    level = float(threshold_otsu(values)) if level is None else level
    table = control(ANY) if table is None else table
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    seen = {mode: view(values, table, half, mode, size, 0.6, level) for mode in MODES}
    figure = plots.gallery(_bytes(np.stack(list(seen.values()))), list(MODES.values()), columns=4, title=name)
    figure.set_size_inches(12, 3.6)
    figure.savefig(out / 'modes.png', dpi=100)
    import imageio.v3 as imageio

    turn = [
        view(values, table, half, 'emission', max(size // 2, 4), 2 * np.pi * i / frames, level) for i in range(frames)
    ]
    imageio.imwrite(out / 'orbit.gif', _bytes(np.stack(turn)), duration=60, loop=0)
    shape = 'x'.join(map(str, values.shape))
    return f'{name}, {shape}: {out / "modes.png"} (surface at {level:.3g}), {out / "orbit.gif"} of {frames} frames'


def view(values, table, half, mode: str, size: int, angle: float, level: float) -> np.ndarray:
    """float32 [size, size, 3] from `angle` about z, a little above; z is up."""
    camera = traced.pinhole(size)
    eye = traced.RADIUS * np.array([np.cos(angle) * np.cos(0.35), np.sin(angle) * np.cos(0.35), np.sin(0.35)])
    pose = jnp.asarray(framing.look_at(eye), jnp.float32)
    at = jnp.asarray(rays.pixel_grid(camera)).reshape(-1, 2)
    origins, ways = rays.generate_rays(camera, pose, at)
    count = 3 * max(values.shape)
    given = jnp.asarray(values), jnp.asarray(table), jnp.asarray(half, jnp.float32), jnp.float32(level)
    return np.asarray(_picture(*given, origins, ways, mode, count)).reshape(size, size, 3)


@partial(jax.jit, static_argnames=('mode', 'count'))
def _picture(values, table, half, level, origins, ways, mode: str, count: int) -> jax.Array:
    return map_in_chunks(lambda ray: _shown(values, table, half, level, *ray, mode, count), (origins, ways), _CHUNK)


def _shown(values, table, half, level, origins, ways, mode: str, count: int) -> jax.Array:
    """What a person is shown, [P, 3]: colours on white, the maximum and X-rays as grey."""
    beam = Beam(origins, ways, *rays.intersect_box(origins, ways, -half, half))
    met = (beam.far > beam.near)[:, None]
    if mode == 'emission':
        light = jnp.array([0.4, 0.3, 0.87])
        shade = casting.medium(values, table, 0.05, -half, half, light=light)
        return casting.gather(shade, beam, count, _OPAQUE, background=1.0).colour
    if mode == 'maximum':
        grey = jnp.where(met, casting.maximum(values, beam, count, -half, half)[0][:, None], 0)
        return jnp.broadcast_to(grey, ways.shape)
    if mode == 'xray':
        grey = casting.transmitted(2.0 * casting.line_integral(values, beam, count, -half, half))
        return jnp.broadcast_to(grey[:, None], ways.shape)
    found = casting.iso_surface(values, level, beam, count, -half, half)
    lit = casting.phong(found.normals, ways, jnp.array([0.6, -0.5, 0.9]), (0.85, 0.78, 0.68), 0.25, 0.75)
    return jnp.where(found.hit[:, None], lit, 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.parser('volume_rendering', __doc__)
    parser.add_argument('file', nargs='?', metavar='FILE', help='the embedded phantom without it')
    parser.add_argument('--output', default='runs/volume_rendering/pictures', help='a folder')
    parser.add_argument('--name', default='shepp_logan', help='shepp_logan or marschner_lobb, without FILE')
    parser.add_argument('--shape', type=_counts, help='of raw voxels: X,Y,Z')
    parser.add_argument('--dtype', default='uint8', help="of raw voxels: 'int16', '>u2', ..")
    parser.add_argument('--spacing', type=_numbers, help='of voxels: X,Y,Z')
    parser.add_argument('--frame', type=int, help='of a file with a fourth axis')
    parser.add_argument('--fill', type=float, help='a number in place of NaN')
    parser.add_argument('--level', type=float, help='of the surface, in 0..1')
    parser.add_argument('--size', type=int, default=256, help='pixels')
    parser.add_argument('--frames', type=int, default=36, help='of the orbit')
    given = parser.parse_args(argv)
    table = control(ANY)
    if given.file:
        told = {key: getattr(given, key) for key in _FILE if getattr(given, key) is not None}
        volume = volumes.load('file', path=given.file, **told)
    else:
        volume = volumes.load(given.name, size=96)
        table = control(HEAD) if given.name == 'shepp_logan' else table
    said = (volume.scaled, volume.half, given.output, table, given.size, given.frames, given.level, volume.name)
    print(pictures(*said))
    return 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.replace('x', ',').split(','))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.replace('x', ',').split(','))


if __name__ == '__main__':
    tools.run(main)
