"""Roles of domains, sources and the target, and the settings of their evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from canon import named
from canon.data.domains import Domains, show_few
from canon.data.pipeline.source import Source
from canon.errors import UsageError
from canon.tasks.adaptation.methods import SHOWN, TARGET
from canon.tasks.image_settings import HeldOutImages


@dataclass(frozen=True)
class DomainRoles:
    """config.data.domains.

    Attributes:
      sources: names of the labelled domains.
      target: name of the domain that is reported.
      shown: labelled examples of each class of the target, 0 for unsupervised adaptation.
      hidden: whether batches hold the target without its labels; False for generalisation, which never sees it.
      paired: whether row i of every domain of a batch is the same example, for domains that hold the same ones in
        order, such as `hog_digits(disjoint=False)`: a supervision by correspondences.
      use_sources: whether batches hold the sources; False to fine-tune on the shown targets alone.
    """

    sources: tuple[str, ...]
    target: str
    shown: Annotated[int, named.Range(0)] = 0
    hidden: bool = True
    use_sources: bool = True
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class DomainEvaluation(HeldOutImages):
    """An entry of config.data.evals.

    Attributes:
      domain: that is evaluated; the target if None, and all sources together if 'sources'. Of the evaluator of rules,
        the labelled domain in place of the sources.
      rules: scores the model by every rule of `canon.transfer.RULES` instead, from held-out examples of the sources
        (`split`) and unlabelled training examples of the target.
      most: examples per domain that the rules see.
      embedding: of the features that the evaluator of rules draws, 'pca' or 'tsne'.
      figures: whether the evaluator draws; the runs of a sweep do not need theirs, which take seconds.
    """

    domain: str | None = None
    rules: bool = False
    most: named.Count = 500
    embedding: Literal['pca', 'tsne'] = 'pca'
    figures: bool = True


@dataclass(frozen=True)
class RatioFeatures:
    """config.data.features: the features from which `data.weights` estimates weights of the source's examples.

    Attributes:
      stage: name of an earlier stage, whose network computes them; the pixels if neither this nor `run` is given.
      run: folder of a finished run instead.
      dimensions: principal components that are kept of them; None for all.
    """

    stage: str | None = None
    run: str | None = None
    dimensions: named.Count | None = 20


def assign_roles(domains: Domains, roles: DomainRoles, seed: int) -> tuple[dict[str, Source], dict[str, Source]]:
    """Returns the labelled and the unlabelled sources of training, by the names that batches have.

    One source is 'source', several are 'source_NAME'; the target is 'target', and its labelled few are 'shown'.

    Raises:
      UsageError: the target is also a source, or there is no such domain.
    """
    if not roles.sources:
        raise UsageError(f'data.domains.sources is empty; name at least one of {", ".join(domains)}')
    if roles.target in roles.sources:
        raise UsageError(
            f'data.domains: sources={roles.sources} and target={roles.target!r} must be different domains; there are'
            f' {", ".join(domains)}'
        )
    one = len(roles.sources) == 1
    labelled: dict[str, Source] = {'source' if one else f'source_{name}': domains[name] for name in roles.sources}
    target: Source = domains[roles.target]
    if not roles.use_sources:
        if not roles.shown:
            raise UsageError('data.domains.use_sources=False leaves no labelled domain; set data.domains.shown, too')
        labelled = {}
    if roles.shown:
        labelled[SHOWN], target = show_few(target, roles.shown, seed)
    return labelled, {TARGET: target} if roles.hidden else {}
