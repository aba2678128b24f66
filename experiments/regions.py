"""Loads what the stages of R-CNN and SPP-net share: images with their proposals, networks, files of earlier stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from canon import data, models, named, plots
from canon.data.detection.proposals import PROPOSERS, Proposer, WithProposals, make_proposer, read_proposals
from canon.data.detection.region_batches import RegionCrop
from canon.errors import UsageError
from canon.metrics.detection.proposals import ProposalRecall
from canon.tasks import detection as tasks
from canon.tasks.classification import make_image_input
from canon.tasks.detection.box_ridge import BoxRegressors, BoxRidgeSettings
from canon.tasks.detection.region_detection import squash_scores
from canon.tasks.detection.region_svms import RegionClassifiers, SvmSettings
from canon.train.artefacts import Artefacts
from canon.train.init_from import read_model
from canon.weights.faster_rcnn import region_reader
from experiments import images

# The functions whose arguments config.proposals holds.
PROPOSALS = {name: named.combine_arguments(function, without=('image',)) for name, function in PROPOSERS.items()}


def list_splits(config: ConfigDict) -> tuple[str, ...]:
    """Returns the names of the splits: 'train', and the evaluators in order."""
    return ('train', *sorted(config.data.evals))


def load_split(config: ConfigDict, name: str) -> data.Source:
    """Returns the images of 'train' or of an evaluator."""
    if name == 'train':
        return images.load_images(config, config.data.train.split)
    where = f'data.evals.{name}'
    # Its transforms are those of batches, whose size they may need; a stage reads images as they are.
    settings = replace(evaluation(config, name), transforms=None)
    return images.load_held_out(config, settings, where, images.load_images)[0]


def evaluation(config: ConfigDict, name: str) -> tasks.DetectionEvaluation:
    """Returns the settings of an evaluator."""
    return named.call(tasks.DetectionEvaluation, config.data.evals[name], f'data.evals.{name}')


def load_proposed(config: ConfigDict, name: str, stages: Mapping[str, Path]) -> WithProposals:
    """Returns the images of a split with their proposals of the stage 'proposals'."""
    found = read_proposals(find_artefacts(stages, 'proposals') / f'{name}.npz', bind_proposer(config)[0])
    return WithProposals(load_split(config, name), found)


def bind_proposer(config: ConfigDict) -> tuple[Proposer, int]:
    """Returns the proposer of config.proposals, and the number of processes."""
    arguments = named.to_plain(config.proposals)
    workers = arguments.pop('workers', 0)
    named.check(workers, Annotated[int, named.Range(0, 256)], 'proposals.workers')
    return make_proposer(where='proposals', **arguments), workers


def find_artefacts(stages: Mapping[str, Path], name: str) -> Path:
    """Returns the folder of what an earlier stage has computed. Raises UsageError if it has not."""
    if name not in stages:
        raise UsageError(f'no stage before this one is called {name!r}, whose artefacts it reads; reorder stages.chain')
    return stages[name] / 'artefacts'


def make_crop(config: ConfigDict) -> RegionCrop:
    """Makes the crop of config.crop; what is outside the image has the mean colour of config.input."""
    return named.call(RegionCrop, {'fill': mean_colour(config), **named.to_plain(config.crop)}, 'crop')


def mean_colour(config: ConfigDict) -> tuple[float, ...]:
    """Returns the colour that is 0 after config.input, in 0..255."""
    mean = np.asarray(named.to_plain(config.input).get('mean', 0.0), np.float64).reshape(-1)
    return tuple((np.broadcast_to(mean, 3) * 255).tolist())


def make_network(config: ConfigDict, names: tuple[str, ...] | None = None) -> tuple[Any, Any]:
    """Returns the model and its input. Raises UsageError unless it has a class per name and one for the background."""
    if names is not None:
        tasks.check_num_classes('fast_rcnn', config.model.num_classes, names)
    return models.make_model(**named.to_plain(config.model)), named.call(make_image_input, config.input, 'input')


def make_reader(config: ConfigDict) -> Callable:
    """Makes the function that reads a classifier's weights into the backbone, and its fc6 and fc7 into the head."""
    return region_reader(config.model.name, named.to_plain(config.model)['backbone']['name'])


def read_variables(stages: Mapping[str, Path], name: str) -> dict[str, Any]:
    """Returns the variables of the network that a stage has trained."""
    if name not in stages:
        raise UsageError(f'no stage before this one is called {name!r}, whose network it reads; reorder stages.chain')
    params, mutable = {}, {}
    for path, value in read_model(stages[name]).items():
        keys = tuple(path.split('/'))
        (mutable if keys[0] == 'batch_stats' else params)[keys] = value
    return {'params': unflatten_dict(params), **unflatten_dict(mutable)}


def read_heads(config: ConfigDict, stages: Mapping[str, Path]) -> tuple[Callable, Callable, set[str]]:
    """Returns what the stages 'svms' and 'boxes' have fitted, and the names of the layers that it reads.

    The classifier and the regressor are arguments of `canon.tasks.detection.region_detection.make_scorer`.
    """
    svms = read_arrays(find_artefacts(stages, 'svms') / 'svms.npz', RegionClassifiers)
    boxes = read_arrays(find_artefacts(stages, 'boxes') / 'boxes.npz', BoxRegressors)
    svm_layer = named.call(SvmSettings, config.svms, 'svms').layer
    box_layer = named.call(BoxRidgeSettings, config.boxes, 'boxes').layer

    def classify(layers):
        return squash_scores(svms.score(layers[svm_layer]))

    def move(own, layers):
        return boxes.move(own, layers[box_layer])

    return classify, move, {svm_layer, box_layer}


def compute_arrays(artefacts: Artefacts, name: str, compute: Callable[[], Any], kind: type) -> Any:
    """Computes a NamedTuple of arrays, `kind`, unless its file `name` is there; returns what the file holds."""
    return read_arrays(artefacts.compute(name, lambda path: np.savez(path, **compute()._asdict())), kind)


def read_arrays(path: Path, kind: type) -> Any:
    """Reads a NamedTuple of arrays that `compute_arrays` has written."""
    with np.load(path) as file:
        return kind(**file)


def save_recall(
    artefacts: Artefacts,
    title: str,
    measured: Mapping[str, ProposalRecall],
    scores: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Writes the figure of the recall of several kinds of proposals, by name, and of the mAP with them if given."""
    best = {name: recall.best_iou for name, recall in measured.items()}
    counts = {name: np.maximum(recall.mean_count, 1e-3) for name, recall in measured.items()}  # drawn by its logarithm
    save_figures(artefacts, {title: plots.draw_proposal_recall(best, counts, scores=scores)})


def save_figures(artefacts: Artefacts, figures: Mapping[str, Any]) -> None:
    """Writes `figures/<title>.png` of a stage that computes; its report shows them."""
    folder = artefacts.folder.parent / 'figures'
    folder.mkdir(exist_ok=True)
    for title, figure in figures.items():
        figure.savefig(folder / f'{title}.png', dpi=100, bbox_inches='tight')
