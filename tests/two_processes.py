"""A process that takes itself for the first of two: where it would wait for the other one, it fails at once."""

import jax
from jax.experimental import multihost_utils


def pretend_to_be_the_first(monkeypatch) -> None:
    """Makes `jax.process_count` 2 from here on, and all that waits for the other process an error."""

    def wait(*args, **kwargs):
        raise AssertionError('waits for the other process')

    for name in ('sync_global_devices', 'process_allgather', 'broadcast_one_to_all'):
        monkeypatch.setattr(multihost_utils, name, wait)
    monkeypatch.setattr(jax, 'process_count', lambda *backend: 2)
