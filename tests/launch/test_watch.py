"""TensorBoard on the runs of a folder, in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from canon.errors import CanonError, UsageError
from canon.train.log import MetricsWriter
from launch import watch


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match='no folder'):
        watch.main([str(tmp_path / 'absent')])


@pytest.mark.slow
def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CanonError, match=f'{port}.*give another --port'):
            watch.start_tensorboard(tmp_path, '127.0.0.1', port)


@pytest.mark.slow
def test_it_serves_the_runs_and_an_interrupt_frees_the_address(root, tmp_path):
    run = tmp_path / 'digits' / 'default'
    run.mkdir(parents=True)
    writer = MetricsWriter(run, trackers=('tensorboard',))
    writer.write(3, {'train/loss': 0.5})
    writer.close()
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(root / 'launch.sh'), 'watch', str(tmp_path), f'--port={port}'],
        cwd=tmp_path,
        env={**os.environ, 'CANON_VENV': sys.prefix, 'CANON_PREPARE': 'no'},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = re.search(r'http://\S+', process.stdout.readline()).group()
        open_address = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        scalars = {}
        while not scalars:  # it reads the files in the background
            time.sleep(0.2)
            scalars = json.load(open_address(f'{address}data/plugin/scalars/tags'))
        assert list(scalars['digits/default']) == ['train/loss']
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    socket.create_server(('127.0.0.1', port)).close()  # it is free again
