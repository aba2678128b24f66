"""Opens a trained radiance field, volume or shape in the browser, rendered by the model while one drags.

    ./launch.sh view --workdir=runs/nerf/traced-smoke/default
    ./launch.sh view --workdir=runs/shapes/deepsdf/default --input=test:3 --port=8081

The page has near and far, exposure, depth, a crop box, the transfer function of a volume, and a path of cameras that is
recorded to RUN/views/*.mp4. Ctrl-C ends it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from canon.configuration import read_saved_config
from canon.errors import UsageError
from experiments import overrides, processes, protocol
from launch import tools

if TYPE_CHECKING:  # wrong usage is reported at once: JAX and NumPy take seconds to import
    import numpy as np

    from canon.rendering.interactive import Scene


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('view', __doc__)
    parser.add_argument('--workdir', metavar='RUN', type=Path, required=True, help='the folder of a run')
    parser.add_argument('--port', type=int, default=8080, help='of the address; the next free one if it is taken')
    parser.add_argument('--host', default='127.0.0.1', help="'0.0.0.0' lets other machines in")
    parser.add_argument('--input', default='', help='of a shape, test:0 or a file; of a volume, another file')
    parser.add_argument('--step', type=int, help='the checkpoint (default: the best, or the newest)')
    options = parser.parse_args(argv)
    if not 0 < options.port < 65536:
        raise UsageError(f'--port={options.port}: 1 to 65535')
    workdir = options.workdir.expanduser()
    check_viewable(workdir)
    print(f'loading {workdir} ...', file=sys.stderr, flush=True)
    processes.silence_libraries()
    processes.use_compilation_cache()
    # A browser that is closed while a frame or a video is made misses nothing.
    warnings.filterwarnings('ignore', message=r'Queued a \w+ on a closed connection')
    scene = load_scene(workdir, options.input, options.step)
    from canon.rendering.viewer import Viewer

    def save(frames: Iterator[np.ndarray]) -> Path:
        path = save_video(workdir / 'views', frames)
        print(f'recorded {path}', flush=True)
        return path

    viewer = Viewer(scene, options.port, save, options.host, title=str(workdir))
    print(f'{workdir}: {viewer.address}  (Ctrl-C ends it)', flush=True)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        print()
    finally:
        viewer.stop()
    return 0


def load_scene(workdir: Path, source: str = '', step: int | None = None) -> Scene:
    """Returns the scene that a run has learnt.

    Args:
      workdir: the folder of the run, or of one of its stages.
      source: --input.
      step: of the checkpoint; None for the best or the newest.

    Raises:
      UsageError: the folder holds no run, the run has no checkpoint, or there is nothing to look at.
    """
    check_viewable(workdir)
    from canon.train import load_trained  # imports JAX, which takes seconds

    config = overrides.load(None, str(workdir))
    config.lock()
    module = protocol.load(config.experiment)
    experiment = module.make(config)
    assert isinstance(module, protocol.Shows)
    assert not isinstance(experiment, list)  # no list of stages has a scene
    run = load_trained(experiment, config, workdir, step)
    return module.show(config, experiment, run.params, run.mutable, source)


def check_viewable(workdir: Path) -> None:
    """Raises UsageError unless a folder holds a run that `show` takes; imports neither JAX nor an experiment."""
    overrides.check_run(workdir)
    config = read_saved_config(workdir / 'config.json')
    name, known = config.get('experiment'), protocol.names('show')
    if name not in known:
        raise UsageError(f'{workdir}: a run of {name!r} cannot be viewed; those of {", ".join(known)} can')
    saved = (workdir / 'checkpoints').is_dir() and any((workdir / 'checkpoints').glob('[0-9]*'))
    published = (config.get('run', {}).get('init_from') or {}).get('path')  # can be viewed without training
    if not saved and not published:
        raise UsageError(f'{workdir} has no checkpoint yet; ./launch.sh run --workdir={workdir} continues the run')


def save_video(folder: Path, frames: Iterator[np.ndarray]) -> Path:
    """Writes frames as `path-N.mp4`, with the first free number, as they come."""
    from canon.plots.saving import VideoWriter
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
