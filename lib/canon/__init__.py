"""The canonical systems of deep learning as pure functions in JAX.

Rooms load on first use (`canon.optim`, `canon.train`, ...), so `import canon` itself costs nothing. `pip install
canon-jax` brings what `losses`, `metrics`, `models`, `nn`, `ops` and `optim` need, and `canon.extras` names the rest.
"""

from typing import TYPE_CHECKING

from canon.extras import install_finder
from canon.lazy import load_on_use

if TYPE_CHECKING:
    from canon import (
        backend,
        camera,
        configuration,
        data,
        errors,
        losses,
        metrics,
        models,
        named,
        native,
        nn,
        ops,
        optim,
        plots,
        rendering,
        tasks,
        tracking,
        train,
        transfer,
        weights,
    )

__version__ = '0.1.0'
__all__ = [
    '__version__', 'backend', 'camera', 'configuration', 'data', 'errors', 'losses', 'metrics', 'models', 'named',
    'native', 'nn', 'ops', 'optim', 'plots', 'rendering', 'tasks', 'tracking', 'train', 'transfer', 'weights',
]  # fmt: skip

install_finder()
if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
