"""A main without JAX for the tests of the commands around it: the same flags, folders, files and exit statuses.

Its score is a function of `config.rate`. `config.trouble` makes it fail, sleep until it is stopped, or leave a damaged
file.
"""

import json
import math
import signal
import sys
import time

from canon.configuration import run_folder
from experiments import overrides
from launch import tools
from launch.flags import read_option, runs_folder


def main(flags=None) -> int:
    flags = sys.argv[1:] if flags is None else flags
    source = read_option(flags, 'config')
    config = overrides.load(source)
    values = overrides.apply(config, overrides.read_flags(flags)[0])
    folder = run_folder(source, values, runs_folder(flags))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config.to_dict()))
    (folder / 'run.json').write_text(json.dumps({'config': source, 'overrides': values}))

    def status(state, **more):
        (folder / 'status.json').write_text(json.dumps({'state': state, 'step': 3, 'steps': 9, **more}))
        return 0

    print('a line of the log')
    if config.trouble == 'fail':
        status('failed', error='the loss is not finite')
        print('error: the loss is not finite', file=sys.stderr)
        return 1
    if config.trouble == 'rubbish':
        (folder / 'status.json').write_text('{"state": "do')
        return 0
    if config.trouble == 'sleep':
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(status('stopped', metrics={})))
        status('running', metrics={})
        time.sleep(60)
    score = 1 - 0.1 * abs(math.log10(config.rate) + 2)
    return status('done', seconds=1.5, metrics={'test/accuracy': score, 'test/loss': 1 - score})


if __name__ == '__main__':
    tools.run(main)
