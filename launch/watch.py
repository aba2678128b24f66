"""Opens TensorBoard on the runs below a folder; Ctrl-C ends it and frees the address.

    ./launch.sh watch
    ./launch.sh watch runs/classification --port=6007

New runs appear while it is open. A run has events if its `run.log` has 'tensorboard', as it has by default.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from canon.errors import CanonError, UsageError
from launch import tools


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('watch', __doc__)
    parser.add_argument('folder', metavar='DIR', type=Path, nargs='?', default=Path('runs'))
    parser.add_argument('--port', type=int, help='of the address (default: 6006, or the next free one)')
    parser.add_argument('--host', default='127.0.0.1', help="'0.0.0.0' lets other machines in")
    options = parser.parse_args(argv)
    if not options.folder.is_dir():
        raise UsageError(f'no folder {options.folder}; runs are in runs/TASK/NAME')
    address = start_tensorboard(options.folder, options.host, options.port)
    print(f'{options.folder}: {address}  (Ctrl-C ends it)', flush=True)
    if next(options.folder.rglob('events.out.tfevents.*'), None) is None:
        print(f"no run in {options.folder} has events yet; those with run.log=('tensorboard',) write them", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    return 0


def start_tensorboard(folder: Path, host: str, port: int | None) -> str:
    """Serves TensorBoard in a thread of this process, which ends with it; returns the address.

    Raises CanonError if the port is taken.
    """
    from tensorboard import program

    logging.getLogger('tensorboard').setLevel(logging.ERROR)
    server = program.TensorBoard()
    words = ['tensorboard', f'--logdir={folder}', f'--host={host}', '--reload_interval=5', '--load_fast=false']
    server.configure(argv=words if port is None else [*words, f'--port={port}'])
    try:
        return server.launch()
    except program.TensorBoardServerException as error:
        raise CanonError(f'{str(error).splitlines()[0]}; give another --port') from error


if __name__ == '__main__':
    tools.run(main)
