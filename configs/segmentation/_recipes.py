"""Shared parts of the recipes: the FCN paper's on Pascal VOC, and scenes of digits."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

KEEP = dict(fields=('image', 'segmentation'))  # of an example; sources also have image_id and original_size


def voc(model: str, rate: float, weights: str, new: str) -> ConfigDict:
    """Returns the paper's recipe for training one network after the other: Shelhamer et al. 2017, section 4.2.

    SGD on single images with momentum 0.99 and weight decay 5e-4, the loss summed over the pixels, the learning rate
    constant and twice as high for biases, which do not decay; 100,000 steps.

    Args:
      model: name of the network.
      rate: the learning rate.
      weights: a file of weights, a repository of the hub, or the folder of a run.
      new: regex of the parameters that these do not have.
    """
    # The largest side of VOC's images is 500: one size, and what is padded is void.
    chain = dict(chain=('keep_fields', 'pad'), keep_fields=KEEP, pad=dict(size=500, value=117))
    return ConfigDict(
        dict(
            experiment='segmentation',
            seed=0,
            data=dict(
                name='sbd_segmentation',  # 8,498 training images
                source=dict(path=placeholder(str)),  # the folder `dataset` of SBD, or a tar of it
                reading=dict(threads=4, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=1,  # "heavy" learning: momentum averages over 100 steps instead
                train=dict(split='train', sampler='shuffled', transforms=chain),
                evals=dict(
                    # The 736 images of VOC 2011's validation set that SBD's training set lacks: the authors' list.
                    seg11valid=dict(
                        split='seg11valid',
                        name='voc_segmentation',
                        source=dict(path=placeholder(str), years=(2011,)),
                        transforms=chain,
                    )
                ),
            ),
            # As torchvision's VGG-16 was trained. For the authors' own, of Caffe (BGR): subtract (0.48109, 0.45752,
            # 0.40787), and std=1 / 255, which leaves pixels in 0..255.
            input=dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            model=dict(name=model, num_classes=21, at_once=False, dtype=placeholder(str)),  # dtype: 'bfloat16'
            # The sum over up to 250,000 pixels: hence the small rates. balance: exponent of the classes' weights.
            loss=dict(reduction='sum', balance=0.0, label_smoothing=0.0),
            tx=dict(
                chain=('decay', 'momentum', 'scale_rates'),
                decay=dict(name='add_decayed_weights', weight_decay=5e-4, where='kernel$'),
                momentum=dict(learning_rate=rate, momentum=0.99),
                scale_rates=dict(rules=(('bias$', 2.0), ('.*', 1.0))),  # Caffe's lr_mult
            ),
            predict=dict(shorter_side=placeholder(int), multiple=1, flip=False),  # the border of 100 takes any size
            run=dict(
                steps='100000 steps',
                log_every='100 steps',
                evals=dict(seg11valid=dict(every='4000 steps')),
                checkpoint=dict(every='4000 steps'),  # the last weights count, as in the paper
                init_from=dict(path=weights, new=new),  # new: regex of what keeps its initialisation
            ),
            target=dict(metric='seg11valid/mean_iu', at_least=0.6, ci=False),  # what the ledger checks
        )
    )


def scenes(
    model: Mapping[str, Any],
    steps: int,
    at_least: float,
    rate: float = 0.02,
    batch_size: int = 16,
    ci: bool = False,
    num_examples: int = 2048,
    **source: Any,
) -> ConfigDict:
    """Returns a recipe on scenes of digits: Muon with a cosine schedule.

    Args:
      model: name and arguments of the network.
      steps: length of the run.
      at_least: mean IU for the ledger.
      rate: the highest learning rate.
      batch_size: scenes per step.
      ci: whether CI runs it.
      num_examples: scenes for training.
      **source: further arguments of `canon.data.detection.digit_scenes`.
    """
    chain = dict(chain=('keep_fields',), keep_fields=KEEP)
    return ConfigDict(
        dict(
            experiment='segmentation',
            seed=0,
            data=dict(
                name='digit_scenes',
                source=dict(target='segmentation', num_examples=num_examples, **source),
                reading=dict(threads=2, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=batch_size,
                train=dict(split='train', sampler='shuffled', transforms=chain),
                evals=dict(test=dict(split='test[:256]', transforms=chain)),
            ),
            input=dict(mean=0.45, std=0.25),  # of pixels in [0, 1]
            model=dict(num_classes=11, dtype=placeholder(str), **model),
            loss=dict(reduction='mean', balance=0.0, label_smoothing=0.0),  # balance: exponent of class weights
            tx=dict(
                chain=('clip', 'muon'),
                clip=dict(name='clip_by_global_norm', max_norm=5.0),
                # Of matrices, and AdamW's of vectors. With Adam alone 900 steps did not tell the digits apart.
                muon=dict(
                    learning_rate=_warm_up(rate),
                    adam_learning_rate=_warm_up(0.15 * rate),
                    weight_decay=1e-2,  # decoupled from the gradient
                ),
            ),
            # Photographs keep their size, if no shorter side is given; they are padded to a multiple of the stride.
            predict=dict(shorter_side=placeholder(int), multiple=32, flip=False),
            run=dict(
                steps=steps,
                log_every='5%',
                evals=dict(test=dict(every='25%')),
                checkpoint=dict(every='50%'),
            ),
            target=dict(metric='test/mean_iu', at_least=at_least, ci=ci),  # what the ledger checks
        )
    )


def _warm_up(rate: float) -> dict[str, Any]:
    """Returns a schedule that rises to a rate over 5 % of the run, and falls to 0 as a cosine."""
    return dict(name='warmup', steps='5%', then=dict(name='cosine', init=rate, final=0.0, steps='95%'))


def paper_smoke(name: str, at_least: float, size: int = 64, most: int = 2) -> ConfigDict:
    """Returns the paper's network and loss on small scenes of light digits, narrow and from scratch.

    The border of 100 pixels would be most of the work for images of 64. BatchNorm and Muon replace ImageNet's weights:
    with the paper's SGD, 200 steps from scratch find no digit.

    Args:
      name: of the network.
      at_least: mean IU for the ledger.
      size: of the scenes, in pixels; digits have 3/8 to 3/4 of it.
      most: digits in a scene.
    """
    model = dict(name=name, width=1 / 8, border=1, batch_norm=True, dropout=0.0)
    sizes = 3 * size // 8, 3 * size // 4
    scene: dict[str, Any] = dict(height=size, width=size, sizes=sizes, most=most, clutter=0, colours='light')
    config = scenes(model, 400, at_least, **scene)
    config.loss.reduction = 'sum'
    return config
