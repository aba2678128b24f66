"""Renders pictures of a volume: emission and absorption, maximum, X-ray, lit surface, and an orbit.

    python -m launch.render_volume [FILE] [--output DIR] [--shape X,Y,Z --dtype T --spacing X,Y,Z --frame N]

writes modes.png and orbit.gif of a .npy, NIfTI or raw volume, or of a synthetic one if FILE is not given.
"""

from __future__ import annotations

from collections.abc import Sequence

from canon.data.scenes import volumes
from canon.rendering.volumes import GENERIC, HEAD, make_transfer_table
from canon.tasks.predictions import Prediction, write_predictions
from canon.tasks.volume_rendering import draw_volume
from experiments.volume_rendering import FILE_KEYS
from launch import tools


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('render_volume', __doc__)
    parser.add_argument('file', nargs='?', metavar='FILE', help='a volume; by default a synthetic one')
    parser.add_argument('--output', default='runs/volume_rendering/pictures', help='a folder')
    parser.add_argument('--name', default='shepp_logan', help='shepp_logan or marschner_lobb, if FILE is not given')
    parser.add_argument('--shape', type=_integers, help='of raw voxels: X,Y,Z')
    parser.add_argument('--dtype', default='uint8', help="of raw voxels: 'int16', '>u2', ...")
    parser.add_argument('--spacing', type=_numbers, help='of voxels: X,Y,Z')
    parser.add_argument('--frame', type=int, help='of a file with a fourth axis')
    parser.add_argument('--fill', type=float, help='a number in place of NaN')
    parser.add_argument('--level', type=float, help="of the surface, in 0..1; Otsu's threshold by default")
    parser.add_argument('--size', type=int, default=256, help='pixels per side')
    parser.add_argument('--frames', type=int, default=36, help='of the orbit')
    options = parser.parse_args(argv)
    control_points = GENERIC
    if options.file:
        # The config of an experiment names the same keys, so a volume is read alike by both.
        file_options = {key: getattr(options, key) for key in FILE_KEYS if getattr(options, key) is not None}
        volume = volumes.load_volume('read_volume', path=options.file, **file_options)
    else:
        volume = volumes.load_volume(options.name, size=96)
        # A head has skin, skull and brain to tell apart; for others a ramp from dark to bright has to do.
        control_points = HEAD if options.name == 'shepp_logan' else GENERIC
    table = make_transfer_table(control_points)
    files, summary = draw_volume(
        volume.scaled, volume.half, table, options.size, options.frames, options.level, volume.name
    )
    print(write_predictions([Prediction(files=files, text=summary)], options.output))
    return 0


def _integers(text: str) -> tuple[int, ...]:
    # Also 256x256x128, as volumes are written on their pages.
    return tuple(int(part) for part in text.replace('x', ',').split(','))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.replace('x', ',').split(','))


if __name__ == '__main__':
    tools.run(main)
