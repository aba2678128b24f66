"""A job of two processes on this machine that trains experiments one after the other, and a process that is alone.

Starting processes costs more than a few small steps, so they train all that a test gives them. Their programs are
compiled as `tests.quick` compiles: the step is tested, not the compiler.
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

from tests import quick

ROOT = __file__.rpartition('/tests/')[0]
ALONE = 'alone'  # in place of the number of a process


def train(config: ConfigDict, workdir) -> None:
    """Trains config.experiment (or what the `make` of config.module returns) into `workdir`."""
    from canon.train import fit

    module = importlib.import_module(config.get('module') or f'experiments.{config.experiment}')
    fit(module.make(config), config, workdir, quiet=True)


def train_with_one_and_two_processes(configs: dict[str, ConfigDict], folder) -> None:
    """Trains each config into `folder/one/<name>` in a process, and into `folder/two/<name>` in a job of two."""
    (folder / 'configs').write_bytes(pickle.dumps({name: config.to_dict() for name, config in configs.items()}))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{s.getsockname()[1]}'

    def run(index):
        words = [sys.executable, '-m', 'tests.experiments.job', str(folder), address, str(index)]
        flags = f'{os.environ.get("XLA_FLAGS", "")} {quick.XLA_FLAGS}'
        env = os.environ | {'JAX_COORDINATOR_BIND_ADDRESS': address, 'XLA_FLAGS': flags}
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=900, env=env)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(run, (0, 1, ALONE)))
    assert [process.returncode for process in done] == [0, 0, 0], ''.join(process.stderr for process in done)


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


def train_on_one_and_on_eight_devices(module: str, folder) -> None:
    """Runs a module of tests in a process of eight devices, and compares what it has trained into `1` and `8`."""
    # Independent reductions that XLA:CPU starts at once can take the threads that other devices need to join them, and
    # all would wait for each other: in order, they cannot.
    options = '--xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false'
    environment = {**os.environ, 'XLA_FLAGS': f'{options} {quick.XLA_FLAGS}', 'JAX_PLATFORMS': 'cpu'}
    words = [sys.executable, '-m', module, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    check_equal_runs(folder / '1', folder / '8')


def train_on_devices(module, config: ConfigDict, folder) -> None:
    """Trains an experiment on one device into `folder/1` and on eight into `folder/8`."""
    from canon.train import fit

    for devices in (1, 8):
        with config.unlocked():
            config.run.mesh = dict(data=devices)
            # The gradients of biases that BatchNorm subtracts are rounding errors: Adam would make steps of them.
            config.tx = dict(name='momentum', learning_rate=0.005, momentum=0.9)
        fit(module.make(config), config, f'{folder}/{devices}', quiet=True)


def check_resumed_run(module, config: ConfigDict, folder) -> dict[str, float]:
    """Checks that a run that is stopped and resumed is bitwise the one that never stopped.

    The config has four steps and saves every second one. Returns the metrics of the resumed run.
    """
    import jax

    from canon.train import fit

    with quick.quick_programs():
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
    if index != ALONE:
        jax.distributed.initialize(address, 2, int(index), heartbeat_timeout_seconds=30, shutdown_timeout_seconds=30)
    for name, config in pickle.loads(Path(folder, 'configs').read_bytes()).items():
        train(ConfigDict(config), Path(folder, 'one' if index == ALONE else 'two', name))
