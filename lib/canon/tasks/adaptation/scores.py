"""Scores of a model by every rule of selection, and the accuracy on the target that only the oracle may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from canon import metrics, transfer
from canon.data import labels as read_labels
from canon.data.pipeline.source import Example, Info, Source
from canon.errors import CanonError
from canon.tasks.adaptation.forward import make_encoder
from canon.tasks.adaptation.methods import Method
from canon.train import Evaluator

HIDDEN = -1  # the label of target examples among those that rules see


class ModelOutputs(NamedTuple):
    """Outputs of a model for one split of a domain."""

    features: np.ndarray  # [N, D]
    logits: np.ndarray  # [N, C]


class DomainFeatures(NamedTuple):
    """Features [N, D], logits [N, C] and labels [N] of the examples that rules see; targets have the label `HIDDEN`."""

    features: np.ndarray
    logits: np.ndarray
    label: np.ndarray

    @property
    def is_target(self) -> np.ndarray:
        return self.label == HIDDEN

    @property
    def classes(self) -> np.ndarray:
        """The labels of the source and the predictions for the target."""
        return np.where(self.is_target, self.logits.argmax(-1), self.label)


def read_columns(rows: metrics.Rows) -> DomainFeatures:
    """Returns the rows of an evaluator of rules as arrays."""
    examples = list(rows.each())
    return DomainFeatures(
        *(np.stack([np.asarray(example[key]) for example in examples]) for key in DomainFeatures._fields)
    )


def collect_outputs(compute: Callable[[Any], tuple[Any, Any]], batches: Iterable[Any]) -> ModelOutputs:
    """Computes (features, logits) of the real rows of all batches.

    Args:
      compute: batch -> (features [B, D], logits [B, C]).
      batches: with 'mask'.
    """
    features, logits = [], []
    for batch in batches:
        pair = compute(batch)
        for rows, values in zip((features, logits), pair, strict=True):
            rows.append(np.asarray(values)[np.asarray(batch['mask'])])
    return ModelOutputs(np.concatenate(features), np.concatenate(logits))


def score_model(source: ModelOutputs, source_labels: np.ndarray, target: ModelOutputs) -> dict[str, float]:
    """Returns the score of each rule of `transfer.RULES`, from which no label of the target is seen.

    Args:
      source: outputs of held-out source examples.
      source_labels: their labels [N].
      target: outputs of target examples, which may be those of training: they have no labels to be learnt by heart.
    """
    labels = np.asarray(source_labels)
    own = -np.take_along_axis(log_softmax(np.asarray(source.logits, np.float64), -1), labels[:, None], 1)[:, 0]
    weights = transfer.fit_discriminator_ratio(source.features, target.features, l2=1e-2)(source.features)
    return {
        'source_risk': transfer.source_risk(source.logits, labels),
        'entropy': transfer.mean_entropy(target.logits),
        'snd': transfer.soft_neighbourhood_density(target.logits),
        'information': transfer.information_score(target.logits),
        'dev': transfer.deep_embedded_validation(own, weights),
    }


class RuleExamples:
    """Held-out source examples with labels, then target examples whose label is `HIDDEN`: what a rule may see."""

    def __init__(self, sources: Sequence[Source], target: Source, most: int):
        """most: examples per domain, spread evenly over it."""
        self.parts = [(source, _spread(len(source), most)) for source in (*sources, target)]
        self.places = [(part, int(i)) for part, (_, ids) in enumerate(self.parts) for i in ids]
        self.info = Info('examples of rules', None, target.info.num_classes, target.info.class_names, len(self.places))
        self.known = [read_labels(source) for source in sources]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        part, i = self.places[index]
        label = self.known[part][i] if part < len(self.known) else HIDDEN
        return {'image': self.parts[part][0][i]['image'], 'label': np.int64(label)}

    def __repr__(self) -> str:
        return f'RuleExamples({len(self)} examples)'


def join_for_rules(sources: Sequence[Source], target: Source, most: int) -> RuleExamples:
    """Returns at most `most` examples of every domain, those of the target without their labels."""
    return RuleExamples(sources, target, most)


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def rules_evaluator(network: tuple[Any, Callable[[Any], Any]], batches: Any, method: Method | None = None) -> Evaluator:
    """Scores a model by every rule: the metrics are the names of `transfer.RULES`.

    Args:
      network: the module, and the function from a batch to its input.
      batches: finite data of `join_for_rules`.
      method: that trains the network; None if its parameters are those of the network.
    """
    encode, encode_source = (make_encoder(*network, method, of_source) for of_source in (False, True))

    def measure(params, mutable, batch):
        hidden = (batch['label'] == HIDDEN)[:, None]
        # Each row with the batch statistics of its domain; without such statistics both are the same computation.
        pairs = zip(encode(params, mutable, batch), encode_source(params, mutable, batch), strict=True)
        features, logits = (jnp.where(hidden, of_target, of_source) for of_target, of_source in pairs)
        values = {'features': features, 'logits': jnp.asarray(logits, jnp.float32), 'label': batch['label']}
        return metrics.Rows.of(values, batch['mask'])

    def finish(rows):
        columns = read_columns(rows)
        hidden = columns.is_target
        source, target = (ModelOutputs(columns.features[s], columns.logits[s]) for s in (~hidden, hidden))
        return score_model(source, columns.label[~hidden], target)

    return Evaluator(batches, measure, finish)


def select_from_log(
    rows: Iterable[Mapping[str, Any]], rules: str = 'rules', target: str = 'target/accuracy'
) -> dict[str, tuple[int, float]]:
    """Returns {'last', each rule, 'oracle': (step, accuracy on the target)} of a run's `metrics.jsonl`.

    Args:
      rows: as `canon.train.log.read_rows` returns them.
      rules: name of the evaluator of rules.
      target: the metric that is reported, which the oracle alone selects by.

    Raises:
      CanonError: no row has both.
    """
    names = {rule: f'{rules}/{rule}' for rule in transfer.RULES}
    by_step: dict[int, dict[str, Any]] = {}
    for row in rows:  # each evaluator writes a row of its own
        by_step.setdefault(int(row['step']), {}).update(row)
    merged = [by_step[step] for step in sorted(by_step)]
    usable = [row for row in merged if target in row and all(key in row for key in names.values())]
    if not usable:
        raise CanonError(f'no evaluation has both {target!r} and the scores of {rules!r}; give both the same `every`')
    scores = {rule: [row[key] for row in usable] for rule, key in names.items()}
    chosen = transfer.select_by_rules(scores, [row[target] for row in usable])
    return {rule: (int(usable[index]['step']), accuracy) for rule, (index, accuracy) in chosen.items()}
