"""Shared parts of the recipes for photographs: data sets and splits, optimizers, and the small form that `:smoke` runs.

A recipe is `recipe(name=..., model=..., ...)`. The config's argument selects the data: none is the paper's data set;
`imagenette` has ten classes of ImageNet (9,469 images); some recipes take `cifar10` or `cifar100`; `smoke` takes
scikit-learn's digits with the recipe's model, optimizer and loss, small images and few steps.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Mean and standard deviation of ImageNet's training images in [0, 1], per channel. CAFFE only subtracts the mean and
# leaves pixels in 0..255, like the papers before ResNet; INCEPTION maps them to [-1, 1].
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CAFFE = dict(mean=(0.485, 0.456, 0.406), std=(1 / 255,))
INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5,))

# Splits for training, for choosing checkpoints and learning rates, and for reporting results; number of classes.
_SPLITS = {
    'imagenet2012': ('train[:99%]', 'train[99%:]', 'validation', 1000),
    'imagenette/full-size-v2': ('train[:90%]', 'train[90%:]', 'validation', 10),
    'cifar10': ('train[:90%]', 'train[90%:]', 'test', 10),
    'cifar100': ('train[:90%]', 'train[90%:]', 'test', 100),
    'mnist': ('train[:90%]', 'train[90%:]', 'test', 10),
    'digits': ('train[:90%]', 'train[90%:]', 'test', 10),
    'folder': ('train[:80%]', 'train[80%:90%]', 'train[90%:]', 10),
}
_SETS = dict(imagenette='imagenette/full-size-v2')


def data_set(arg: str, own: str = 'imagenet2012') -> str:
    """Returns the data set that the argument selects: `own` for none, and for 'smoke', which `smoke` replaces."""
    return own if arg in ('', 'smoke') else _SETS.get(arg, arg)


def recipe(
    *,
    name: str,
    batch_size: int,
    train: Mapping[str, Any],
    evals: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    tx: Mapping[str, Any],
    run: Mapping[str, Any],
    target: Mapping[str, Any],
    input: Mapping[str, Any] = IMAGENET,
    loss: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a classification config.

    Adds an evaluator 'withheld', like the first of `evals` but on images withheld from training: it chooses
    checkpoints, and the learning rate if a plateau rule watches it.

    Args:
      name: of the data set, a key of `_SPLITS`.
      batch_size: images per step, over all devices.
      train: transforms of the training images.
      evals: {name: an evaluator's transforms, scales, flip}.
      model: name and arguments of the network.
      tx: the optimizer.
      run: steps, log_every and eval_every, and other keys of config.run.
      target: metric and threshold for the ledger.
      input: mean and std of the input normalisation.
      loss: of training; None is the cross entropy without label smoothing.
    """
    train_split, withheld_split, test_split, classes = _SPLITS[name]
    first = next(iter(evals.values()))
    evals = {key: dict(split=test_split, **value) for key, value in evals.items()}
    evals['withheld'] = dict(split=withheld_split, **first)
    compressed = name.startswith(('image', 'folder'))  # the transforms decode
    return ConfigDict(
        dict(
            experiment='classification',
            seed=0,
            data=dict(
                name=name,  # of a TFDS data set, or 'digits', 'folder', 'npz', ...
                data_dir='~/tensorflow_datasets',  # where `./launch.sh prepare` puts TFDS data
                source=dict(
                    path=placeholder(str),  # of a folder or an .npz
                    decode=False if compressed else placeholder(bool),  # False leaves decoding to the transforms
                ),
                reading=dict(
                    threads=2 if name == 'digits' else 8,  # that prepare batches ahead
                    workers=0,  # processes that do it instead of threads; 0 for none
                ),
                batch_size=batch_size,  # over all devices
                train=dict(
                    split=train_split,  # may be sliced, 'train[:90%]'
                    sampler='shuffled',  # 'balanced' draws all classes equally often
                    transforms=train,  # augmentation, in the order of `chain`
                ),
                evals=evals,  # {name: split, transforms, and scales or flip to average predictions}
            ),
            input=input,  # (pixel / 255 - mean) / std, on the device
            model=dict(
                num_classes=classes,
                dtype=placeholder(str),  # of activations: 'bfloat16' halves their memory on accelerators
                **model,
            ),
            loss=loss or dict(label_smoothing=0.0),
            tx=tx,
            run=dict(
                evals={key: dict(every=run['eval_every']) for key in evals},  # how often each evaluator runs
                checkpoint=dict(
                    every=run['eval_every'],
                    best='withheld/accuracy',  # the metric whose best checkpoint is kept and handed on
                    mode='max',
                ),
                **{key: value for key, value in run.items() if key != 'eval_every'},
            ),
            target=target,  # what `./launch.sh ledger` checks
        )
    )


def smoke(config: ConfigDict, size: int, batch_size: int, steps: int | str, model: Mapping[str, Any], at_least: float):
    """Returns the recipe on the digits: its model, optimizer and loss, with the main evaluator only.

    Args:
      config: the recipe.
      size: height and width that the 8x8 digits are resized to.
      batch_size: images per step.
      steps: length of the run.
      model: arguments of the network that replace the recipe's, such as init='he' if the paper's initialisation assumes
        pixels in 0..255 and the full width.
      at_least: accuracy for the ledger.
    """
    main = 'validation' if 'validation' in config.data.evals else 'test'
    chain = dict(chain=('resize', 'random_shift'), resize=dict(size=size), random_shift=dict(pixels=size // 12))
    small = recipe(
        name='digits',
        batch_size=batch_size,
        train=chain,
        evals={main: dict(transforms=dict(chain=('resize',), resize=dict(size=size)))},
        model={},
        tx={},
        run=dict(steps=steps, log_every='10%', eval_every='20%'),
        target=dict(metric=f'{main}/accuracy', at_least=at_least, ci=False),
        input=dict(mean=(0.3,), std=(0.35,)),
        loss=config.loss,
    )
    small.tx, small.model = config.tx, ConfigDict({**config.model, 'num_classes': 10, **model})
    if 'ema' in small.tx:
        small.tx.ema.decay = 0.95  # averages over tens of steps; the recipe's over tens of thousands
    return small


def one_crop(size: int, short_side: int) -> dict[str, Any]:
    """Returns an evaluator on the central crop of `size` pixels of images with a shorter side of `short_side`."""
    chain = ('decode', 'resize_short', 'center_crop')
    return dict(transforms=dict(chain=chain, resize_short=dict(size=short_side), center_crop=dict(size=size)))


def ten_crop(size: int, short_side: int) -> dict[str, Any]:
    """Returns an evaluator that averages over the four corners, the centre and their mirror images."""
    chain = ('decode', 'resize_short', 'ten_crop')
    return dict(transforms=dict(chain=chain, resize_short=dict(size=short_side), ten_crop=dict(size=size)))


def rmsprop(
    init: float, decay_rate: float, every: str, weight_decay: float, where: str | None = None, **links
) -> dict[str, Any]:
    """Returns TensorFlow's RMSProp with Google's settings: decay 0.9, momentum 0.9 after the rate, eps 1 in the root.

    Args:
      init: the initial learning rate.
      decay_rate: factor of the learning rate after each period.
      every: the period, such as '2 epochs'.
      weight_decay: coupled, added to the gradient.
      where: regex of the parameters that decay; None for all.
      **links: additions to the chain; `clip` goes to its front.
    """
    order = (*(('clip',) if 'clip' in links else ()), 'decay', 'scale_by_rms', 'rate', 'trace', 'ema')
    return dict(
        chain=order,
        decay=dict(name='add_decayed_weights', weight_decay=weight_decay, **({'where': where} if where else {})),
        scale_by_rms=dict(decay=0.9, eps=1.0, eps_in_sqrt=True),  # in the root, as TensorFlow has it
        rate=dict(
            name='scale_by_learning_rate',
            learning_rate=dict(name='exponential', init=init, decay=decay_rate, steps=every, staircase=True),
        ),
        trace=dict(momentum=0.9),  # after the rate, so that a lower rate does not scale what has accumulated
        ema=dict(decay=0.9999),  # evaluated are the averaged weights
        **links,
    )


def momentum(
    learning_rate: Any, decay: float, momentum: float = 0.9, plateau: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns SGD with momentum and coupled weight decay; `plateau` divides the rate by 10 when a metric stalls."""
    links = dict(
        decay=dict(name='add_decayed_weights', weight_decay=decay),
        momentum=dict(learning_rate=learning_rate, momentum=momentum),
    )
    if plateau is None:
        return dict(chain=('decay', 'momentum'), **links)
    return dict(chain=('decay', 'plateau', 'momentum'), plateau=dict(name='divide_on_plateau', **plateau), **links)
