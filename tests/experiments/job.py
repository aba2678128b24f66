"""A job of two processes on this machine that trains experiments one after the other.

Starting two processes costs more than a few small steps, so one job trains all that a test gives it.
"""

import importlib
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

ROOT = __file__.rpartition('/tests/')[0]


def train(config: ConfigDict, workdir) -> None:
    """Trains config.experiment (or what the `make` of config.module returns) into `workdir`."""
    from canon.train import fit

    module = importlib.import_module(config.get('module') or f'experiments.{config.experiment}')
    fit(module.make(config), config, workdir, quiet=True)


def train_in_two_processes(configs: dict[str, ConfigDict], folder) -> None:
    """Trains each config into `folder/<name>` in one job of two processes."""
    (folder / 'configs').write_bytes(pickle.dumps({name: config.to_dict() for name, config in configs.items()}))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{s.getsockname()[1]}'

    def run(index):
        words = [sys.executable, '-m', 'tests.experiments.job', str(folder), address, str(index)]
        env = os.environ | {'JAX_COORDINATOR_BIND_ADDRESS': address}
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=900, env=env)

    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(run, range(2)))
    assert [rank.returncode for rank in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr


def check_equal_runs(one, two) -> None:
    """Compares the parameters and all metrics of two workdirs to 2e-5."""
    from canon.train.init_from import read_model
    from canon.train.log import read_rows

    expected, actual = read_model(one), read_model(two)
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-5, atol=2e-5, err_msg=f'{two.name}: {name}')
    rows = [read_rows(workdir / 'metrics.jsonl') for workdir in (one, two)]
    for before, after in zip(*rows, strict=True):
        assert before.keys() == after.keys()
        for key in before:
            if 'second' not in key:
                assert after[key] == pytest.approx(before[key], rel=1e-4, abs=1e-5, nan_ok=True), f'{two.name}: {key}'


def check_resumed_run(module, config: ConfigDict, folder) -> dict[str, float]:
    """Checks that a run that is stopped and resumed is bitwise the one that never stopped.

    The config has four steps and saves every second one. Returns the metrics of the resumed run.
    """
    import jax

    from canon.train import fit

    straight = fit(module.make(config), config, folder / 'a', quiet=True)
    config.run.stop_after = 2
    assert fit(module.make(config), config, folder / 'b', quiet=True).status == 'stopped'
    config.run.stop_after = None
    resumed = fit(module.make(config), config, folder / 'b', quiet=True)
    assert resumed.status == 'done'
    for before, after in zip(*(jax.tree.leaves(x.state) for x in (straight, resumed)), strict=True):
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    np.testing.assert_equal(straight.metrics, resumed.metrics)  # NaN equals NaN
    return resumed.metrics


if __name__ == '__main__':
    import jax

    from tests import conftest  # noqa: F401  (the tests' compilation cache)

    folder, address, index = sys.argv[1:]
    jax.distributed.initialize(address, 2, int(index), heartbeat_timeout_seconds=30, shutdown_timeout_seconds=30)
    for name, config in pickle.loads(Path(folder, 'configs').read_bytes()).items():
        train(ConfigDict(config), f'{folder}/{name}')
