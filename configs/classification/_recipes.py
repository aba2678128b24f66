"""What the recipes for photographs share: where the images come from, and the shrunk form that `:smoke` runs.

A recipe is `recipe(data=..., model=..., ...)`. Its argument says on which data: none is the paper's own, `imagenette`
(ten classes of ImageNet, 9,469 images) or `cifar10`, `cifar100` where the recipe takes them, and `smoke` scikit-learn's
digits, with the model, the update rule and the loss of the recipe, small images and few steps.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Mean and standard deviation of ImageNet's training images in [0, 1], a channel; CAFFE only subtracts the mean and
# leaves the pixels in 0..255, as the papers before ResNet do; INCEPTION maps them to [-1, 1].
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CAFFE = dict(mean=(0.485, 0.456, 0.406), std=(1 / 255,))
INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5,))

# Training, what is withheld from it to choose checkpoints and rates by, and the images that results are reported on.
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
    """The data set that a config's argument asks for; its own for none and for 'smoke', which `smoke` replaces."""
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
    """A classification config. name: of the data. train: its transforms. evals: {name: transforms, scales, flip}.

    The evaluator 'withheld' does as the first of `evals` on images that are withheld from training: checkpoints are
    chosen by it, and rates where a rule watches it.
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
                name=name,
                data_dir='~/tensorflow_datasets',
                source=dict(path=placeholder(str), decode=False if compressed else placeholder(bool)),
                reading=dict(threads=2 if name == 'digits' else 8, workers=0),
                batch_size=batch_size,
                train=dict(split=train_split, sampler='shuffled', transforms=train),
                evals=evals,
            ),
            input=input,
            model=dict(num_classes=classes, dtype=placeholder(str), **model),
            loss=loss or dict(label_smoothing=0.0),
            tx=tx,
            run=dict(
                evals={key: dict(every=run['eval_every']) for key in evals},
                checkpoint=dict(every=run['eval_every'], best='withheld/accuracy', mode='max'),
                **{key: value for key, value in run.items() if key != 'eval_every'},
            ),
            target=target,
        )
    )


def smoke(config: ConfigDict, size: int, batch_size: int, steps: int | str, model: Mapping[str, Any], at_least: float):
    """The recipe on the digits, `size` pixels a side: its model (with the arguments of `model`), update rule and loss.

    Only its main evaluator stays. Where the paper's initialisation is made for pixels of 0..255 and the full width, the
    recipe says init='he' in `model`. at_least: of accuracy, for the ledger.
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
        small.tx.ema.decay = 0.95  # over tens of steps, as the recipe's is over tens of thousands
    return small


def one_crop(size: int, short_side: int) -> dict[str, Any]:
    """The middle `size` pixels of the image with its shorter side resized; with the two equal, its middle square."""
    chain = ('decode', 'resize_short', 'center_crop')
    return dict(transforms=dict(chain=chain, resize_short=dict(size=short_side), center_crop=dict(size=size)))


def ten_crop(size: int, short_side: int) -> dict[str, Any]:
    """Corners, middle and their mirror images."""
    chain = ('decode', 'resize_short', 'ten_crop')
    return dict(transforms=dict(chain=chain, resize_short=dict(size=short_side), ten_crop=dict(size=size)))


def rmsprop(
    init: float, decay_rate: float, every: str, weight_decay: float, where: str | None = None, **links
) -> dict[str, Any]:
    """TensorFlow's RMSProp as Google trained with it: decay 0.9, momentum 0.9 behind the rate, epsilon 1 in the root.

    The rate is multiplied by `decay_rate` after each `every`. links: more of the chain's, `clip` goes to its front.
    """
    order = (*(('clip',) if 'clip' in links else ()), 'decay', 'scale_by_rms', 'rate', 'trace', 'ema')
    return dict(
        chain=order,
        decay=dict(name='add_decayed_weights', weight_decay=weight_decay, **({'where': where} if where else {})),
        scale_by_rms=dict(decay=0.9, eps=1.0, eps_in_sqrt=True),
        rate=dict(
            name='scale_by_learning_rate',
            learning_rate=dict(name='exponential', init=init, decay=decay_rate, steps=every, staircase=True),
        ),
        trace=dict(momentum=0.9),
        ema=dict(decay=0.9999),
        **links,
    )


def momentum(
    learning_rate: Any, decay: float, momentum: float = 0.9, plateau: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """SGD with momentum and coupled weight decay, the rate inside the velocity; divided by 10 on a plateau if asked."""
    links = dict(
        decay=dict(name='add_decayed_weights', weight_decay=decay),
        momentum=dict(learning_rate=learning_rate, momentum=momentum),
    )
    if plateau is None:
        return dict(chain=('decay', 'momentum'), **links)
    return dict(chain=('decay', 'plateau', 'momentum'), plateau=dict(name='divide_on_plateau', **plateau), **links)
