"""The protocol of a module of `experiments/`, which binds a config to parts of the library.

`make` and `offline` are required, the rest is optional: main asks `isinstance(module, Predicts)`. A config selects
`experiments/<task>.py` by `experiment='<task>'`; adding an experiment is adding one file. Hooks of stages are
documented in `experiments/staged.py`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from canon.errors import UsageError
from canon.named import Catalogue, suggest

if TYPE_CHECKING:  # `./launch.sh run --help` takes no JAX
    from matplotlib.figure import Figure
    from ml_collections import ConfigDict

    from canon.rendering.interactive import Scene
    from canon.tasks.predictions import Prediction
    from canon.train import Experiment, Stage
    from canon.weights.stablehlo import Served


@runtime_checkable
class ExperimentModule(Protocol):
    """The functions that every experiment has."""

    def make(self, config: ConfigDict) -> Experiment | list[Stage]:
        """Returns the experiment of a locked config, or its stages in order.

        `run` and `seed` are the loop's; the config's `tx` is passed on as it is. Raises `UsageError` that names the key
        for a config that fits no data or no model.
        """
        ...

    def offline(self, config: ConfigDict) -> ConfigDict:
        """Returns the config on data that need no download: to build every config in the tests, and to time it.

        Shapes that the model sees stay what they are. A config that is offline already is returned as it is.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """An experiment with `--mode=predict --input=SOURCE`."""

    def predict(
        self, config: ConfigDict, experiment: Experiment, params: Any, mutable: Any, source: str
    ) -> Iterator[Prediction]:
        """Yields predictions in the order of the inputs; `canon.tasks.predictions.write_predictions` writes them.

        Args:
          config: that of the run, or of the last stage of a run in stages.
          experiment: what `make` or `without_data` returned.
          params: the weights that the run hands on.
          mutable: what else its model holds, such as statistics of BatchNorm.
          source: --input, such as a file, a folder or a sentence.
        """
        ...


@runtime_checkable
class Shows(Protocol):
    """An experiment that can be looked at from any side: `./launch.sh view`."""

    def show(self, config: ConfigDict, experiment: Experiment, params: Any, mutable: Any, source: str) -> Scene:
        """Returns the scene that a run has learnt; source: --input, '' if it is not given. Else as `Predicts`."""
        ...


@runtime_checkable
class Exports(Protocol):
    """An experiment with `--mode=export`."""

    def served(self, config: ConfigDict, experiment: Experiment) -> Served:
        """Returns the function that an exported model computes, with the shape and type of its input."""
        ...


@runtime_checkable
class WithoutData(Protocol):
    """An experiment that predicts and exports from a run alone."""

    def without_data(self, config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
        """Returns the experiment of a run from `about`, its `Experiment.about` as `run.json` has it."""
        ...


@runtime_checkable
class DrawsBatches(Protocol):
    """An experiment whose training batches can be looked at: `./launch.sh data`."""

    def draw_batch(self, config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Returns figures of a batch after its transforms, by the names of their files.

        Args:
          config: that of `make`, or of the stage.
          experiment: what `make` returned.
          batch: of `experiment.train`; of an evaluator where nothing is trained.
        """
        ...


@runtime_checkable
class HasSections(Protocol):
    """An experiment whose config has sections of its own."""

    # {path of a section: {name: function}}, the first if the section has no `name`; `*` in a path is any key. For
    # 'data.source', from which data.name selects, a mapping adds to the data sets that all experiments share, and a
    # catalogue replaces them. The command line may set every argument.
    SECTIONS: Mapping[str, Mapping[str, Callable] | Catalogue]


def names(function: str = '') -> list[str]:
    """Returns the names of all experiments: modules and packages here that define `make` (none is imported).

    Args:
      function: of this protocol, such as 'show': only the experiments that define it, too.
    """
    folder = Path(__file__).parent
    # As text: importing every experiment would import JAX and take seconds.
    files = [*folder.glob('*.py'), *folder.glob('*/__init__.py')]
    texts = {(p.parent if p.stem == '__init__' else p).stem: p.read_text(encoding='utf-8') for p in files}
    required = [f'\ndef {name}(' for name in ('make', function) if name]
    return sorted(name for name, text in texts.items() if all(line in text for line in required))


def check_name(name: Any) -> None:
    """Raises UsageError for a name that no experiment has; imports nothing, since JAX takes seconds."""
    known = names()
    if name not in known:
        raise UsageError(f'no experiment is called {name!r}{suggest(str(name), known)}')


def load(name: str) -> ExperimentModule:
    """Returns the module `experiments.<name>`."""
    check_name(name)
    module = importlib.import_module(f'experiments.{name}')
    assert isinstance(module, ExperimentModule), f'experiments.{name} needs make(config) and offline(config)'
    return module


@contextlib.contextmanager
def name_missing_key(config: ConfigDict) -> Generator[None]:
    """Raises UsageError for a key that an experiment needs and the config lacks; other errors keep their traceback."""
    from canon.configuration import find_missing_key

    try:
        yield
    except (AttributeError, KeyError) as error:
        key = find_missing_key(error, config)
        if key is None:
            raise
        raise UsageError(f'the config has no {key!r}, and experiment {config.experiment!r} needs it') from error
