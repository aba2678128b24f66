"""The types of training: a learning task is a NamedTuple of pure functions, as an optimizer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import optax
from ml_collections import ConfigDict

from canon.metrics import Mean

Params = Any
Mutable = Any
Batch = Any
Key = Any
Config = Mapping[str, Any] | ConfigDict

CARRY = 'carry'


def is_carried(name: str) -> bool:
    """Returns whether a leaf of `mutable`, such as 'carry/lstm/c', holds one entry per row of the batch."""
    return name.partition('/')[0] == CARRY


class At(NamedTuple):
    """The point in training at which a loss is evaluated: schedules read the step, randomness comes from the key."""

    key: Key  # `fold_in(key(seed), step)`, of a microbatch folded with its index
    step: Any  # int32 scalar: updates made before this one


class Task(NamedTuple):
    """A learning task as pure functions.

    init:     (key, batch) -> variables, a dict with 'params' and whatever else flows from batch to batch
              ('batch_stats', an occupancy grid): that rest is called `mutable`. Its collection 'carry' holds one entry
              per row of the batch (a recurrent network's state under truncated backpropagation); it is laid out over
              devices and cut into microbatches like the batch.
    loss:     (params, mutable, batch, at) -> (Mean, (mutable, {name: Mean})). The loss is a sum with its weight; the
              step divides the gradient once by the total weight, so masks, microbatches and processes do not change it.
    predict:  (params, mutable, batch) -> outputs, for evaluators and figures.
    gradient: optional, in place of the gradient of `loss`, which may then be None: (params, mutable, batch, at) ->
              (grads, Mean, mutable, {name: Mean}), with grads the gradient of the loss's sum; a leaf that has a weight
              of its own is a `Mean`. `canon.train.game` makes one for several networks with a loss each.
    """

    init: Callable[[Key, Batch], Mapping[str, Any]]
    loss: Any  # Callable[[Params, Mutable, Batch, At], tuple[Mean, tuple[Mutable, Mapping[str, Mean]]]] | None
    predict: Callable[[Params, Mutable, Batch], Any]
    gradient: Callable[[Params, Mutable, Batch, At], tuple[Any, Mean, Mutable, Mapping[str, Mean]]] | None = None


class State(NamedTuple):
    """All that changes in training. It holds no key, because the key of a step is `fold_in(key(seed), step)`."""

    step: Any  # int32 scalar: updates made so far
    params: Params
    mutable: Mutable
    opt: optax.OptState


@runtime_checkable
class Data(Protocol):
    """Batches by number, so that any step can be replayed, and a resumed run continues where it stopped.

    Training data are endless; evaluation data are finite and have a `len`. A batch is a tree of arrays with equal
    first axis. `batch_size` (of all processes together) and `num_examples` let lengths be given in epochs.

    A job of several processes needs one more method, `for_process(index, count) -> Data`: the same data whose batches
    hold only the rows of process `index` of `count`, with the `batch_size`, the `num_examples` and the `len` of the
    whole. Concatenated in the order of the processes, their batches are the batch of one process. Training calls it
    on the data of an experiment, once; called on what it returned, it again cuts the full batches.

    Training data whose first batch takes long to read may have an attribute `example`, a batch of zeros that the model
    is initialised by, so that evaluating a run reads no training data.
    """

    def __getitem__(self, step: int) -> Batch: ...

    def iterate(self, start: int = 0) -> Iterator[Batch]: ...


class Evaluator(NamedTuple):
    """A measurement over finite data.

    data:    finite `Data`.
    measure: (params, mutable, batch) -> a tree of accumulators (`Mean`, counts, `Rows`), which add over the batches.
    finish:  (the sum of them, as numpy) -> {name: float}.
    draw:    optional, (params, mutable, sum) -> {name: matplotlib Figure, or `plots.Animation`}; called on the host
             after the last step.
    start:   optional, (params, batch) -> what rows carry before the first batch. Batches are then read in order,
             `measure` finds under 'carry' in `mutable` what the one before left, and returns (accumulators, carry).
    on_host: `measure` is not compiled: it receives numpy batches and may call scipy (assignment, per-class NMS, an
             SVM). The parameters stay on the device, for functions that `measure` compiles itself. Each process of a
             job measures its own rows, and the accumulators are added over processes, exactly.
    write:   optional, (sum, folder) -> None: writes files of results, as a benchmark reads them, into `results/NAME` of
             the run; called on the host after the last step.
    """

    data: Any
    measure: Callable[[Params, Mutable, Batch], Any]
    finish: Callable[[Any], Mapping[str, float]]
    draw: Callable[[Params, Mutable, Any], Mapping[str, Any]] | None = None
    start: Callable[[Params, Batch], Any] | None = None
    on_host: bool = False
    write: Callable[[Any, Path], None] | None = None


class Experiment(NamedTuple):
    """A task bound to its optimizer and its data: what `fit` runs.

    task:  what is learnt.
    tx:    a gradient transformation, or the mapping in a config that describes one (`optim.make_optimizer`): training
           makes it, with its lengths in steps.
    train: training data; None if nothing is trained. `fit` then runs every evaluator once, and needs no `tx`.
    evals: the evaluators, by name.
    make_step: the last resort for unusual updates, in place of `canon.train.make_step`: (task, tx, seed) -> a step,
           (state, batch) -> (state, {name: Mean}). It cannot accumulate; a gradient of the task (`Task.gradient`) can.
    about: what `run.json` records of the data (class names, shapes), so that the run can be used without them.
    read:  reads published weights for `run.init_from.path`: (path, {name: leaf} of parameters and mutable) -> {name:
           array}, or None for a path that it cannot read, such as a run's (`canon.weights.reader`).
    summarise: optional, (rows of `metrics.jsonl`) -> {name: value}: figures of the run as a whole, such as the accuracy
           of the evaluation that a rule selects. Computed once, after the last evaluation; a row and the final metrics
           have them as 'summary/NAME'.
    """

    task: Task
    tx: Any = None  # optax.GradientTransformation | Mapping[str, Any]
    train: Any = None  # Data | None
    evals: Mapping[str, Evaluator] = {}
    make_step: Callable[[Task, Any, int], Callable[[State, Batch], tuple[State, Mapping[str, Mean]]]] | None = None
    about: Mapping[str, Any] = {}
    read: Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None] | None = None
    summarise: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]] | None = None
