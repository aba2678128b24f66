"""Shared parts of the claims: scikit-learn's digits, rotated, shifted and scaled at random, and SGD with momentum."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def choose_form(config: ConfigDict, forms: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """Gives a config forms by name, whose sections replace its own: the first one, until `form` names another."""
    config.forms = ConfigDict({name: dict(form) for name, form in forms.items()})
    config.form = next(iter(forms))
    return config


def sweep_forms(forms: Iterable[str], seeds: Iterable[int] = (0, 1)) -> Iterator[dict[str, Any]]:
    """Yields the overrides of a sweep over forms, each with several seeds."""
    for form in forms:
        for seed in seeds:
            yield {'form': form, 'seed': seed}


def claim(
    model: Mapping[str, Any],
    rate: float,
    steps: int | str,
    at_least: float,
    size: int = 32,
    batch_size: int = 64,
    weight_decay: float = 1e-4,
    log_every: int | str = '2%',
) -> ConfigDict:
    """Returns a classification config with a constant learning rate.

    Args:
      model: name and arguments of the network.
      rate: the learning rate.
      steps: length of the run.
      at_least: held-out accuracy for the ledger.
      size: height and width that the 8x8 digits are resized to.
      batch_size: images per step.
      weight_decay: of kernels, coupled.
      log_every: period of the logged metrics.
    """
    chain = ('resize', 'random_affine')
    affine = dict(degrees=20, translate=0.1, scale=(0.8, 1.2))  # hard enough that forms of a network differ
    return ConfigDict(
        dict(
            experiment='classification',
            seed=0,
            data=dict(
                name='digits',
                data_dir='~/tensorflow_datasets',  # where the digits are written once, as a TFDS set
                source=dict(path=placeholder(str)),  # of data.name=folder or npz
                reading=dict(threads=2, workers=0),  # that prepare batches ahead
                batch_size=batch_size,
                train=dict(
                    split='train',
                    sampler='shuffled',
                    transforms=dict(chain=chain, resize=dict(size=size), random_affine=affine),
                ),
                evals=dict(test=dict(split='test', transforms=dict(chain=('resize',), resize=dict(size=size)))),
            ),
            input=dict(mean=(0.3,), std=(0.35,)),  # of the digits' pixels, about
            model=dict(num_classes=10, **model),
            loss=dict(label_smoothing=0.0),
            tx=dict(
                chain=('decay', 'momentum'),
                # Biases and norms do not decay.
                decay=dict(name='add_decayed_weights', weight_decay=weight_decay, where='kernel$'),
                momentum=dict(learning_rate=rate, momentum=0.9),
            ),
            run=dict(
                steps=steps,
                log_every=log_every,
                evals=dict(test=dict(every='25%')),
                checkpoint=dict(every='100%'),
                log=(),  # a sweep has many runs, and `table` reads their own logs
            ),
            target=dict(metric='test/accuracy', at_least=at_least),
        )
    )
