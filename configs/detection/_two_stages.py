"""Shared parts of the recipes of Fast and Faster R-CNN: on scenes of digits, and of the papers on VOC and COCO."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.detection._recipes import paper, scenes, sgd, shrink

FASTER_RCNN = dict(  # as `system`, trained jointly
    name='faster_rcnn',
    rpn_weight=1.0,  # of the proposals' loss
    use_difficult=False,  # the authors leave VOC's difficult objects out of training
)
FAST_RCNN = dict(
    name='fast_rcnn', use_difficult=True
)  # on the proposals of config.data.proposals; as the authors' code
SMALL = dict(height=96, width=96, sizes=(12, 48), most=8, clutter=3)  # scenes of `:smoke`, those of ssd_digits.py


def small_pyramid(width: float = 0.25, channels: int = 64) -> dict[str, Any]:
    """Returns a feature pyramid of strides 4, 8, 16 and 32 on a narrow VGG-11, for scenes of 96 pixels and more.

    width: share of VGG's channels. channels: of every level; 256 in the paper.
    """
    return dict(
        name='feature_pyramid.feature_pyramid',
        backbone=dict(name='vgg.vgg11', width=width, batch_norm=True, init='he'),
        stages=('conv3', 'conv4', 'conv5'),  # strides 4, 8 and 16; the last level is every second pixel of the third
        channels=channels,
        batch_norm=True,  # not in the paper: the network starts from scratch
    )


def small_head(**changes: Any) -> dict[str, Any]:
    """Returns the arguments of a narrow second stage on `small_pyramid`. **changes: of them, or further ones."""
    head = dict(
        num_classes=11,  # ten digits and the background
        backbone=small_pyramid(),
        canonical_size=48.0,  # regions of 48 pixels are pooled from the level of stride 16, of 24 from that of 8
        pool_size=5,  # rows and columns of a pooled region; 7 in the paper
        units=(256, 128),  # of the head's two layers; 1024 in the paper
        dropout=0.0,
    )
    return {**head, **changes}


def small_faster_rcnn(**changes: Any) -> dict[str, Any]:
    """Returns a narrow Faster R-CNN with a feature pyramid for scenes of digits. **changes: of its arguments."""
    model = dict(
        name='faster_rcnn.faster_rcnn',
        anchor_sizes=((8, 11), (16, 22), (32, 45), (64, 90)),  # roots of areas in pixels, by level
        aspect_ratios=(1.25, 2.0),  # heights over widths: the median digit is 1.75 times as high as wide
    )
    return {**model, **small_head(**changes)}


# Of the small forms of the papers, whose digits are 32 to 64 pixels high, on one map.
LARGE_ANCHORS = (20, 27, 36, 48)  # roots of areas in pixels


def small_single_level(stride: int = 8, **changes: Any) -> dict[str, Any]:
    """Returns a narrow Faster R-CNN on one map of VGG-11, as in its paper. **changes: of its arguments."""
    model = small_faster_rcnn(
        backbone=dict(name='vgg.vgg11', width=0.25, batch_norm=True, init='he'),
        stride=stride,  # pixels between places of the map
        anchor_sizes=(10, 14, 20, 28, 40),  # roots of areas in pixels, all at each place
        rpn_channels=64,  # 512 in the paper
    )
    del model['canonical_size']
    return {**model, **changes}


def small_sections(**rpn: Any) -> dict[str, Any]:
    """Returns the sections `rpn`, `regions` and `detect` for scenes of digits. **rpn: changes of the first."""
    settings = dict(
        foreground=0.6,  # IoU from which an anchor is positive; 0.7 in the paper
        background=0.3,
        per_image=128,  # anchors that the RPN learns from
        inside_only=False,  # digits reach to the border
        min_size=2.0,  # pixels of a proposal
        pre_nms=200,  # anchors per level that enter NMS in training
        post_nms=100,  # proposals per image in training
        test_pre_nms=200,  # in evaluation
        test_post_nms=100,
    )
    return dict(
        rpn={**settings, **rpn},
        regions=dict(per_image=48, positive_fraction=0.33),  # proposals that the second stage learns from
        detect=dict(score_threshold=0.02, iou_threshold=0.45, per_class=100, max_detections=100),
    )


def digits(
    model: Mapping[str, Any],
    system: Mapping[str, Any],
    steps: int,
    at_least: float,
    smoke: bool = False,
    num_examples: int | None = None,
    test: int | None = None,
) -> ConfigDict:
    """Returns a recipe on scenes of digits.

    Args:
      model: name and arguments of the network.
      system: of learning.
      steps: length of the run.
      at_least: mAP at IoU 0.5 for the ledger.
      smoke: takes smaller scenes with fewer and larger digits.
      num_examples: scenes for training.
      test: scenes of the evaluation.
    """
    return scenes(
        model,
        system,
        steps,
        at_least,
        num_examples=num_examples or (4096 if smoke else 8192),
        test=test or (128 if smoke else 256),
        source=SMALL if smoke else None,
        sections=small_sections(),
    )


def alternate(
    config: ConfigDict,
    steps: Mapping[str, int],
    stages: Mapping[str, Mapping[str, Any]] | None = None,
    frozen: str | None = None,
) -> ConfigDict:
    """Returns a recipe in the four steps of Ren et al. 2015, section 3.2, "4-Step Alternating Training".

    1. `rpn`: a region proposal network. `proposals`: those of all images, in files.
    2. `fast`: Fast R-CNN on them, with features of its own from the same initialisation.
    3. `shared_rpn`: the proposals' layers on the features of step 2, which stay as they are.
    4. `shared_fast`: the second stage on the same features, and on the proposals of step 3, which are computed as they
       are needed: their network stays as it is, too.

    All stages have the network of Faster R-CNN, of which each trains a part, so that the last one is the detector.

    Args:
      config: a recipe of Faster R-CNN.
      steps: of the four stages, by name.
      stages: further keys of each, by name.
      frozen: regex of parameters that no stage trains.
    """
    second = '^(head|logits|offsets)/'
    untrained = dict(rpn=second, fast='^rpn/', shared_rpn=f'{second}|^backbone/', shared_fast='^(rpn|backbone)/')
    network, most = dict(system=dict(name='rpn')), config.rpn.post_nms
    parts: dict[str, Any] = {name: dict(run=dict(steps=steps[name])) for name in untrained}
    parts['rpn'].update(network)
    parts['fast'].update(system=dict(name='fast_rcnn'), data=dict(proposals=dict(stage='proposals', most=most)))
    parts['shared_rpn']['system'] = dict(name='rpn', freeze_features=True)
    parts['shared_rpn']['run']['init_from'] = dict(stage='fast', new=None)
    parts['shared_fast']['system'] = dict(name='faster_rcnn', freeze_features=True, rpn_weight=0.0)
    # Classes and boxes are drawn anew, as in the authors' code; the layers before them go on from step 2.
    parts['shared_fast']['run']['init_from'] = dict(stage='shared_rpn', new='^(logits|offsets)/')
    # What a stage does not train must not decay either.
    chain = (*(name for name in config.tx.chain if name != 'freeze'), 'freeze')
    for name, where in untrained.items():
        parts[name]['tx'] = dict(chain=chain, freeze=dict(where=f'{where}|{frozen}' if frozen else where))
    # The file has as many proposals as Fast R-CNN is trained on: more than a test takes.
    counts = dict(test_pre_nms=config.rpn.pre_nms, test_post_nms=most)
    parts['proposals'] = dict(experiment='network_proposals', network='rpn', rpn=counts, **network)
    merged = ConfigDict(parts)
    with merged.unlocked():
        merged.update(ConfigDict(dict(stages or {})))
    chain = ('rpn', 'proposals', 'fast', 'shared_rpn', 'shared_fast')
    with config.unlocked():
        config.experiment = 'staged'
        del config.system.rpn_weight  # not an argument of the other systems
        config.stages = dict(experiment='detection', chain=chain, **merged.to_dict())
    return config


def region_sgd(rate: Any, frozen: str = r'^backbone/conv[12]_', weight_decay: float = 5e-4) -> dict[str, Any]:
    """Returns SGD with momentum 0.9 as Caffe has it; parameters whose names match `frozen` stay as they are.

    Biases decay, too: the authors' networks say nothing of it, and Caffe's default is that they do.
    """
    tx = sgd(rate, weight_decay)
    tx['decay']['where'] = r'(kernel|bias)$'
    return {**tx, 'chain': (*tx['chain'], 'freeze'), 'freeze': dict(where=frozen)}


def paper_by_regions(
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    system: Mapping[str, Any],
    tx: Mapping[str, Any],
    steps: int | str,
    batch_size: int,
    metric: str,
    at_least: float,
    sides: tuple[int, int] = (600, 1000),
    rpn: Mapping[str, Any] | None = None,
    regions: Mapping[str, Any] | None = None,
    iou_threshold: float = 0.3,
) -> ConfigDict:
    """Returns a recipe of a paper: images keep their aspect and are mirrored at random.

    Args:
      data: as of `paper`.
      model: name and arguments of the network.
      system: of learning.
      tx: the optimizer.
      steps: length of the run.
      batch_size: images per step.
      metric: of the evaluator 'test'.
      at_least: its threshold for the ledger.
      sides: the shorter side of images, and the longest that the other one may be.
      rpn: section of proposals.
      regions: section of the second stage.
      iou_threshold: of NMS among detections.
    """
    short, longest = sides
    middle = round(short * 4 / 3 / 32) * 32  # most photographs are 4:3
    # An image goes to the size of nearest aspect, is scaled to fit and padded; every size compiles once.
    fit = dict(size='batch', position='corner', value=(124, 116, 104))
    config = paper(
        data,
        model,
        system,
        # Mirrored before it is padded, as in the code of the authors: all padding is at the right and at the bottom.
        dict(chain=('random_flip', 'letterbox'), letterbox=fit),
        dict(chain=('letterbox',), letterbox=fit),
        tx,
        steps=steps,
        batch_size=batch_size,
        metric=metric,
        at_least=at_least,
        detect=dict(score_threshold=0.05, iou_threshold=iou_threshold, per_class=300, max_detections=100),
    )
    with config.unlocked():
        config.data.sizes = ((short, middle), (middle, short), (short, longest), (longest, short))
        config.rpn, config.regions = dict(rpn or {}), dict(regions or {})
    return config


def vgg16_on_voc(
    data: Mapping[str, Any], decay_at: int | str, steps: int | str, at_least: float, regions: Mapping[str, Any]
) -> ConfigDict:
    """Returns the recipe of the authors' code: VGG-16 on Pascal VOC, two images per update.

    Args:
      data: as of `paper`.
      decay_at: when the rate of 1e-3 is divided by 10.
      steps: length of the run.
      at_least: mAP for the ledger.
      regions: section of the second stage.
    """
    return paper_by_regions(
        data,
        dict(
            name='faster_rcnn.faster_rcnn_vgg16',
            num_classes=21,  # 20 and the background
            width=1.0,  # share of VGG-16's channels and units
            dropout=0.5,  # after both layers of the head
        ),
        FASTER_RCNN,
        region_sgd(dict(name='step_decay', init=1e-3, steps=(decay_at,))),
        steps=steps,
        batch_size=2,
        metric='map50',
        at_least=at_least,
        # 16 pixels of the photograph; most are enlarged 1.6 times.
        rpn=dict(pre_nms=12000, post_nms=2000, test_pre_nms=6000, test_post_nms=300, min_size=25.6),
        regions=regions,
    )


def shrink_by_regions(
    config: ConfigDict, model: Mapping[str, Any], steps: int = 350, at_least: float = 0.2
) -> ConfigDict:
    """Returns a paper's recipe by regions on few large digits, with one of the networks of scenes of digits.

    Args:
      config: of `paper_by_regions`.
      model: name and arguments of the network.
      steps: length of the run.
      at_least: mAP for the ledger.
    """
    size = 128  # of the scenes, in pixels; digits are a quarter to a half as high
    shrink(config, size, model, steps, 8, at_least)
    with config.unlocked():
        config.data.sizes = ((size, size),)
        config.rpn.update(dict(pre_nms=300, post_nms=100, test_pre_nms=300, test_post_nms=50, min_size=8.0))
        config.rpn.inside_only = False  # most anchors reach beyond images this small
    return config
