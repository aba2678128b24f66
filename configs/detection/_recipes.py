"""Shared parts of the recipes: of the papers on Pascal VOC and COCO, and on scenes of digits."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# As torchvision's VGG-16 was trained, which the recipes of SSD start from. Weights of Caffe, and torchvision's SSD300,
# need mean=(0.48235, 0.45882, 0.40784) and std=1 / 255: pixels in 0..255 less (123, 117, 104).
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SSD = dict(  # of section 2.2, as `system`
    name='ssd',
    threshold=0.5,  # IoU from which a prior is matched
    negative_ratio=3.0,  # mined negatives per positive
    min_negatives=0,  # per image: images without objects have no loss
    localisation_weight=1.0,  # alpha
)
YOLO = dict(  # of equation 3, as `system`
    name='yolo',
    coord=5.0,  # weight of the coordinates
    noobj=0.5,  # weight of the confidences of predictors without an object: most of them
    rescore=True,  # a confidence learns the IoU of its box, as in section 2; False: it learns 1
    use_difficult=False,  # darknet leaves difficult objects out of training
)
SIZES = (12.0, 24.0)  # sides in pixels between small, medium and large digits: a third of them each


def scenes(
    model: Mapping[str, Any],
    system: Mapping[str, Any],
    steps: int | str,
    at_least: float,
    rate: float = 0.02,
    batch_size: int = 16,
    num_examples: int = 8192,
    test: int = 256,
    ci: bool = False,
    transforms: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    sections: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a recipe on scenes of digits: Muon with a cosine schedule.

    Args:
      model: name and arguments of the network.
      system: of learning, such as `SSD`.
      steps: length of the run.
      at_least: mAP at IoU 0.5 for the ledger.
      rate: the highest learning rate.
      batch_size: scenes per step.
      num_examples: scenes for training.
      test: scenes of the evaluation.
      ci: whether CI runs it.
      transforms: of training; scenes have one size already.
      source: further arguments of `canon.data.detection.digit_scenes`.
      sections: further sections, or others in place of those here.
    """
    source = source or {}
    config = ConfigDict(
        dict(
            experiment='detection',
            seed=0,
            data=dict(
                name='digit_scenes',
                source=dict(num_examples=num_examples, **source),
                reading=dict(threads=2, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=batch_size,
                objects=dict(most=source.get('most', 12), overflow='error'),  # objects per image
                train=dict(split='train', sampler='shuffled', transforms=transforms),
                evals=dict(
                    test=dict(
                        split=f'test[:{test}]',
                        sizes=SIZES,
                        year=2010,  # area below the curve of precision and recall; 2007: 11 points of it
                        coco=True,  # COCO's twelve numbers as well
                    )
                ),
            ),
            input=dict(mean=0.45, std=0.25),  # of pixels in [0, 1]
            model=dict(dtype=placeholder(str), **model),  # name and arguments of the network
            system=dict(system),
            detect=dict(
                score_threshold=0.01,  # low: average precision ranks even the weakest detections
                iou_threshold=0.45,  # of NMS within a class
                per_class=100,  # boxes that enter NMS, the best first
                max_detections=100,  # per image
            ),
            predict=dict(min_score=0.3),  # of the detections that pictures and tables have
            tx=dict(
                chain=('clip', 'muon'),
                clip=dict(name='clip_by_global_norm', max_norm=10.0),
                # Muon of matrices, Adam of the rest; Adam alone takes several times as long on scenes of digits.
                muon=dict(learning_rate=_warm_up(rate), adam_learning_rate=_warm_up(0.15 * rate)),
            ),
            run=dict(
                steps=steps,  # or '30 epochs'; a percentage below is one of these steps
                log_every='5%',
                evals=dict(test=dict(every='25%')),
                checkpoint=dict(every='50%'),
            ),
            target=dict(metric='test/map50', at_least=at_least, ci=ci),  # what the ledger checks
        )
    )
    config.update(ConfigDict(dict(sections or {})))
    return config


def _warm_up(rate: float) -> dict[str, Any]:
    """Returns a schedule that rises to a rate over 3 % of the run, and falls to 0 as a cosine."""
    return dict(name='warmup', steps='3%', then=dict(name='cosine', init=rate, final=0.0, steps='97%'))


def small_ssd(maps: int = 4, width: float = 0.25, scale: float = 1.0) -> dict[str, Any]:
    """Returns a narrow SSD for scenes of 128 pixels: priors from stride 4 on, upright like digits.

    Args:
      maps: feature maps that are predicted from, the finest first: strides 4, 8, 16, 32, 64.
      width: share of the channels.
      scale: of the priors.
    """
    # Relative to the image, of the square priors.
    sizes = tuple(scale * size for size in (0.055, 0.11, 0.22, 0.42, 0.7, 0.95))
    return dict(
        name='ssd.ssd',
        num_classes=11,  # ten digits and the background
        backbone=dict(name='vgg.vgg11', width=width, batch_norm=True, init='he'),  # width: share of the channels
        stages=('conv3', 'conv4', 'conv5')[:maps],  # the backbone's maps that are predicted from
        extras=(64,) * (maps - 3),  # channels of the maps after them
        sizes=sizes[: maps + 1],  # one more than maps: a second square prior has the geometric mean of two sizes
        aspect_ratios=((1.8,),) * maps,  # the median digit is 0.57 times as wide as high
    )


def shrink_ssd(config: ConfigDict, maps: int = 4, scale: float = 1.0) -> ConfigDict:
    """Returns a paper's recipe of SSD on few large digits, with the network of `ssd_digits.py`.

    Of SSD300's own network, with 1/16 of the channels, 400 steps learnt boxes, but hardly classes.

    Args:
      config: of the paper.
      maps: feature maps that are predicted from.
      scale: of the priors.
    """
    metric = config.target.metric
    config = shrink(config, 128, small_ssd(maps, scale=scale), 500, 16, 0.1)
    if metric == 'test/coco_ap':
        config.data.evals.test.coco = True
        config.target.update(metric=metric, at_least=0.05)  # a mean over ten thresholds, most of them strict
    return config


def small_yolo() -> dict[str, Any]:
    """Returns a narrow YOLO for scenes of 128 pixels, on the backbone of `small_ssd`, with 16x16 cells.

    The paper's fully connected layers learn each cell on its own, from 600 objects in 1,200 steps of easy scenes: a
    hundredth of what the paper's cells see, and the network stayed at chance. So they are shared here. The 24 narrow
    convolutions found boxes, but no classes, in 600 steps, and the nine of Fast YOLO reached a mAP of 59 %.
    """
    return dict(
        name='yolo.backbone_yolo',
        backbone=dict(name='vgg.vgg11', width=0.25, batch_norm=True, init='he'),  # width: share of the channels
        stage='conv4',  # of the backbone, with a stride of 8: the pixels of a cell
        channels=(128, 128, 128),  # of the 3x3 convolutions after it; four of 1024 in the paper
        num_classes=10,
        num_boxes=2,  # per cell
        size=128,
        hidden=(256,),  # units of the fully connected layer; 4096 in the paper
        per_cell=True,  # not in the paper: this layer and the output are the same for all cells
        batch_norm=True,  # not in the paper: the network starts from scratch
        dropout=0.0,  # after the fully connected layer; 0.5 in the paper
    )


def paper(
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    system: Mapping[str, Any],
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    tx: Mapping[str, Any],
    steps: int | str,
    batch_size: int,
    metric: str,
    at_least: float,
    input: Mapping[str, Any] = IMAGENET,
    detect: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a recipe of a paper, of which the last weights count.

    Args:
      data: name, source, objects, and the splits `train` and `test` with the options of the evaluator.
      model: name and arguments of the network.
      system: of learning.
      train: transforms of training.
      test: transforms of evaluation.
      tx: the optimizer.
      steps: length of the run.
      batch_size: images per step.
      metric: of the evaluator 'test'.
      at_least: its threshold for the ledger.
      input: mean and std of the pixels.
      detect: how scores become detections; None is SSD's, of section 3.1: scores above 0.01, NMS at an IoU of 0.45, 200
        detections; 400 boxes per class as in the code.
    """
    splits = data['splits']
    return ConfigDict(
        dict(
            experiment='detection',
            seed=0,
            data=dict(
                name=data['name'],
                source=dict(path=placeholder(str), decode=True, **data.get('source', {})),  # a folder or a tar
                reading=dict(threads=4, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=batch_size,
                objects=data['objects'],
                train=dict(split=splits['train'], sampler='shuffled', transforms=train),
                evals=dict(test=dict(split=splits['test'], transforms=test, **data['test'])),
            ),
            input=input,
            model=dict(dtype=placeholder(str), **model),
            system=dict(system),
            detect=detect or dict(score_threshold=0.01, iou_threshold=0.45, per_class=400, max_detections=200),
            predict=dict(min_score=0.3),  # of the detections that pictures and tables have
            tx=tx,
            run=dict(
                steps=steps,
                log_every='100 steps',
                evals=dict(test=dict(every='10%')),
                checkpoint=dict(every='5%'),
                init_from=dict(path=placeholder(str), new=placeholder(str)),  # published weights, or a run
            ),
            target=dict(metric=f'test/{metric}', at_least=at_least, ci=False),  # what the ledger checks
        )
    )


def voc(**test: Any) -> dict[str, Any]:
    """Returns the data of 07+12: 16,551 training images, tested on the 4,952 of 2007."""
    return dict(
        name='voc_detection',
        objects=dict(most=64, overflow='truncate'),  # the fullest image of 07+12 has 56
        splits=dict(train='2007-trainval+2012-trainval', test='2007-test'),
        test=dict(year=2007, **test),  # 11 points, as SSD and YOLO report
    )


def ssd_transforms(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the augmentation of section 3.6 in the order of the authors' code, and the transforms of the test."""
    methods = 'bilinear', 'area', 'nearest', 'bicubic', 'lanczos'  # each image draws one; not in the paper
    train = dict(
        chain=('ssd_photometric', 'expand', 'min_iou_crop', 'resize', 'random_flip'),
        expand=dict(limit=4.0, p=0.5),  # "zoom out"
        min_iou_crop=dict(overlaps=(0.1, 0.3, 0.5, 0.7, 0.9)),  # least IoU with an object, one sampler each
        resize=dict(size=size, method=methods),  # the aspect changes
    )
    return train, dict(chain=('resize',), resize=dict(size=size))


def sgd(rate: Any, weight_decay: float = 5e-4) -> dict[str, Any]:
    """Returns SGD with momentum 0.9 as Caffe has it.

    Kernels and the scale of conv4_3 decay; biases learn twice as fast and do not.
    """
    return dict(
        # The decay comes first: it is a part of the gradient, and enters the momentum and the rate, as in Caffe.
        chain=('decay', 'momentum', 'scale_rates'),
        decay=dict(name='add_decayed_weights', weight_decay=weight_decay, where=r'(kernel|channel_scale)$'),
        momentum=dict(learning_rate=rate, momentum=0.9),
        scale_rates=dict(rules=(('bias$', 2.0), ('.*', 1.0))),
    )


def shrink(
    config: ConfigDict,
    size: int,
    model: Mapping[str, Any],
    steps: int,
    batch_size: int,
    at_least: float,
) -> ConfigDict:
    """Returns a paper's recipe on few large digits, with a narrow network from scratch: its loss and augmentation.

    Muon learns in place of SGD, with which the classes stay at chance for hundreds of steps.

    Args:
      config: of the paper.
      size: of the scenes, in pixels.
      model: arguments of the network that change.
      steps: length of the run.
      batch_size: scenes per step.
      at_least: mAP at IoU 0.5 for the ledger.
      rate: the learning rate, after a warm-up.
    """
    sides = size // 4, size // 2
    source = dict(height=size, width=size, sizes=sides, most=4)
    small = scenes({}, {}, steps, at_least, batch_size=batch_size, num_examples=512, test=64, source=source)
    with config.unlocked():
        transforms = config.data.train.transforms, config.data.evals.test.transforms
        config.data, config.run, config.tx, config.target = small.data, small.run, small.tx, small.target
        config.data.train.transforms, config.data.evals.test.transforms = transforms
        for chain in transforms:
            for link in chain.chain:
                if isinstance(chain.get(link, {}).get('size'), int):
                    chain[link].size = size
        if 'name' in model:
            config.model = {}
        config.data.evals.test.sizes, config.data.evals.test.coco = (size * 0.3, size * 0.4), False
        config.model.update(dict(model, num_classes=10 if config.system.name == 'yolo' else 11))
    return config
