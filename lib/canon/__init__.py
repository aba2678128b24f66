"""The canonical systems of deep learning as pure functions in JAX.

Rooms load on first use (`canon.optim`, `canon.train`, ...), so `import canon` itself costs nothing.
"""

import importlib

__version__ = '0.1.0'
_ROOMS = (
    'backend',
    'camera',
    'configuration',
    'data',
    'errors',
    'losses',
    'metrics',
    'models',
    'named',
    'nn',
    'ops',
    'optim',
    'plots',
    'rendering',
    'tasks',
    'tracking',
    'train',
    'transfer',
    'weights',
)


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f'canon.{name}')
    raise AttributeError(f'module canon has no attribute {name!r}')


def __dir__():
    return [*globals(), *_ROOMS]
