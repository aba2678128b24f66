"""Opens a trained radiance field, volume or shape in the browser, rendered by the model while one drags.

    ./launch.sh view --workdir=runs/nerf/traced-smoke/default
    ./launch.sh view --workdir=runs/shapes/deepsdf/default --input=test:3 --port=8081

The page has near and far, exposure, depth, a crop box, the transfer function of a volume, and a path of cameras that is
recorded to RUN/views/*.mp4. Ctrl-C ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canon.errors import UsageError
from canon.plots.saving import VideoWriter
from canon.train import load_trained
from canon.train.stages import last_stage
from experiments import overrides, protocol
from launch import tools


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('view', __doc__)
    parser.add_argument('--workdir', metavar='RUN', type=Path, required=True, help='the folder of a run')
    parser.add_argument('--port', type=int, default=8080, help='of the address; the next free one if it is taken')
    parser.add_argument('--host', default='127.0.0.1', help="'0.0.0.0' lets other machines in")
    parser.add_argument('--input', default='', help='of a shape, test:0 or a file; of a volume, another file')
    parser.add_argument('--step', type=int, help='the checkpoint (default: the best, or the newest)')
    options = parser.parse_args(argv)
    scene = load_scene(options.workdir, options.input, options.step)
    from canon.rendering.viewer import Viewer

    def save(frames: Iterator[np.ndarray]) -> Path:
        return save_video(options.workdir / 'views', frames)

    viewer = Viewer(scene, options.port, save, options.host, title=str(options.workdir))
    print(f'{options.workdir}: {viewer.address}  (Ctrl-C ends it)', flush=True)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        print()
    finally:
        viewer.stop()
    return 0


def load_scene(workdir: Path, source: str = '', step: int | None = None):
    """Returns the scene that a run has learnt; raises UsageError if its experiment has nothing to look at."""
    config = overrides.load(None, str(workdir))
    config.lock()
    module = protocol.load(config.experiment)
    stage: tuple[Any, Any, Path] = last_stage(module.make(config), config, workdir)
    experiment, config, workdir = stage
    module = protocol.load(str(config['experiment']))  # the experiment of the last stage
    if not isinstance(module, protocol.Shows):
        known = [name for name in protocol.names() if isinstance(protocol.load(name), protocol.Shows)]
        raise UsageError(f'a run of {config["experiment"]!r} cannot be viewed; those of {", ".join(known)} can')
    run = load_trained(experiment, config, workdir, step)
    return module.show(config, experiment, run.params, run.mutable, source)


def save_video(folder: Path, frames: Iterator[np.ndarray]) -> Path:
    """Writes frames as `path-N.mp4`, with the first free number, as they come."""
    from canon.rendering.viewer import FRAME_RATE  # viser takes a second to import

    folder.mkdir(parents=True, exist_ok=True)
    numbers = (int(n) for path in folder.glob('path-*.mp4') if (n := path.stem.partition('-')[2]).isdigit())
    path = folder / f'path-{max(numbers, default=0) + 1}.mp4'
    with VideoWriter(path, FRAME_RATE) as writer:
        for frame in frames:
            writer.append(frame)
    return path


if __name__ == '__main__':
    tools.run(main)
