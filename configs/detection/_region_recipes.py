"""Shared parts of the recipes of R-CNN and SPP-net: their stages, on scenes of digits and on Pascal VOC."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.detection._recipes import SIZES

# Each stage computes from the finished ones before it (`experiments/region_*.py`).
RCNN_STAGES = dict(
    experiment='region_finetuning',
    chain=('proposals', 'finetune', 'features', 'svms', 'boxes', 'detections'),
    proposals=dict(experiment='region_proposals'),
    finetune=dict(experiment='region_finetuning', run=dict(evals=None)),  # only the last stage is evaluated
    features=dict(experiment='region_features'),
    svms=dict(experiment='region_svms'),
    boxes=dict(experiment='region_boxes'),
    detections=dict(experiment='region_detections'),
)
REGIONS = dict(
    per_image=64,  # regions that the layers after SPP-net's pyramid learn from
    positive_fraction=0.25,  # of them at most
    foreground=0.5,  # IoU from which a region is positive
    background=0.5,  # IoU below which it is negative,
    background_low=0.0,  # unless it is lower than this
)


def follow_spp_net(config: ConfigDict) -> ConfigDict:
    """Returns a recipe with what SPP-net does otherwise than R-CNN after the features."""
    config.svms.max_overlap = 0.7
    # Suppression is of all regions, and limits what is left.
    config.detect.candidates_per_class, config.detect.max_per_class = None, 100
    return config


def list_spp_stages(image: int, images: int, steps: int) -> dict[str, Any]:
    """Returns the stages of SPP-net on scenes.

    Args:
      image: side in pixels of the images on which the layers after the pyramid are fine-tuned.
      images: per step, with 64 regions each.
      steps: of that stage.
    """
    finetune = dict(
        experiment='region_head_finetuning',
        data=dict(batch_size=images, train=dict(transforms=dict(chain=('resize',), resize=dict(size=image)))),
        run=dict(steps=steps, evals=None, init_from=dict(stage='classifier')),
    )
    return dict(
        experiment='region_finetuning',
        chain=('proposals', 'classifier', 'finetune', 'features', 'svms', 'boxes', 'detections'),
        proposals=dict(experiment='region_proposals'),
        classifier=dict(experiment='region_finetuning', run=dict(evals=None)),
        finetune=finetune,
        **{name: RCNN_STAGES[name] for name in ('features', 'svms', 'boxes', 'detections')},
    )


def list_spp_voc_stages(short: int, canvas: int, classifier: bool = False) -> dict[str, Any]:
    """Returns the stages of SPP-net on VOC, which start from weights of ImageNet.

    Args:
      short: shorter side in pixels of the images on which the layers after the pyramid are fine-tuned.
      canvas: side of the square that they are padded to.
      classifier: trains a classifier of regions, as `list_spp_stages` does, in place of those weights.
    """
    transforms = dict(
        chain=('resize_short', 'pad'),
        resize_short=dict(size=short, longest=canvas),
        pad=dict(size=(canvas, canvas), position='corner', value=(124, 116, 104)),  # the mean, as features have it
    )
    finetune = dict(
        experiment='region_head_finetuning',
        data=dict(batch_size=2, train=dict(transforms=transforms)),
        run=dict(evals=None, init_from=dict(stage='classifier')) if classifier else dict(evals=None),
    )
    first = dict(classifier=RCNN_STAGES['finetune']) if classifier else {}
    shared = ('proposals', 'features', 'svms', 'boxes', 'detections')
    return dict(
        experiment='region_finetuning',
        chain=('proposals', *first, 'finetune', 'features', 'svms', 'boxes', 'detections'),
        finetune=finetune,
        **first,
        **{name: RCNN_STAGES[name] for name in shared},
    )


SVMS = dict(
    layer='fc7',
    c=1e-3,  # weight of the hinge loss
    bias=10.0,  # the constant feature
    positive_weight=2.0,  # of objects relative to negatives
    negative_iou=0.3,  # a region is negative for a class below this IoU with its objects
    max_overlap=1.0,  # IoU with an earlier negative above which a negative is left out; 1 keeps all
    norm=20.0,  # mean norm that features are scaled to
    hard=-1.0001,  # score from which a negative joins the examples
    easy=-1.2,  # score below which it leaves them
    retrain=2000,  # new negatives of a class after which it is trained again
)
BOXES = dict(
    layer='pool5',
    ridge=1000.0,  # lambda
    min_iou=0.6,  # of the regions that are fitted
    norm=20.0,
)
ADAM = dict(  # as `tx`, for small networks from scratch
    chain=('clip', 'adam'),
    clip=dict(name='clip_by_global_norm', max_norm=10.0),
    adam=dict(
        learning_rate=dict(name='warmup', steps='5%', then=dict(name='cosine', init=2e-3, final=0.0, steps='95%'))
    ),
)
DETECT = dict(
    score_threshold=0.15,  # of the logistic function of an SVM's score, which is 0.27 at the margin of negatives
    iou_threshold=0.3,  # of non-maximum suppression within a class
    candidates_per_class=100,  # regions per image that enter it, as in R-CNN's code
    max_per_class=None,  # detections of a class per image
    max_detections=None,  # of all classes together
)


def digits(
    model: Mapping[str, Any],
    crop: Mapping[str, Any],
    stages: Mapping[str, Any],
    steps: int,
    at_least: float,
    num_examples: int = 1024,
    test: int = 256,
    source: Mapping[str, Any] | None = None,
    scales: Mapping[str, Any] | None = None,
    sizes: tuple[int, ...] = (),
) -> ConfigDict:
    """Returns the recipe on scenes of digits, with a small network from scratch.

    Args:
      model: name and arguments of the network.
      crop: of the regions, in fine-tuning and, without `scales`, of the features.
      stages: in order.
      steps: of fine-tuning.
      at_least: mAP at IoU 0.5 for the ledger.
      num_examples: scenes for training.
      test: scenes of the evaluation.
      source: further arguments of `canon.data.detection.digit_scenes`.
      scales: of the maps from which SPP-net computes features.
      sizes: of the crops of fine-tuning, which take turns; that of `crop` if empty.
    """
    config = ConfigDict(
        dict(
            experiment='staged',
            seed=0,
            data=dict(
                name='digit_scenes',
                source=dict(num_examples=num_examples, **(source or {})),
                reading=dict(threads=2, workers=0),
                batch_size=128,  # regions per step of fine-tuning
                objects=dict(
                    most=12,  # objects per image, where batches have images
                    overflow='error',  # what an image with more is
                ),
                train=dict(split='train'),
                evals=dict(test=dict(split=f'test[:{test}]', sizes=SIZES, year=2010, coco=True)),
            ),
            # Digits are small and of one colour: few pixels are a segment, and one colour space finds them.
            proposals=dict(
                name='selective_search',
                strategy='fast',
                colours=('lab',),
                scales=(50.0, 200.0),
                min_size=8,
                max_boxes=2000,
                workers=0,  # processes; 0 computes in this one
            ),
            input=dict(mean=0.45, std=0.25),  # of pixels in [0, 1]; the mean is also what is outside the image
            crop=dict(crop),
            finetuning=dict(
                positive_fraction=0.25,  # 32 of 128
                positive_iou=0.5,
                negative_iou=0.0,
                flip=0.0,  # a mirrored digit is none
                sizes=sizes,
            ),
            model=dict(dtype=placeholder(str), **model),
            regions=dict(REGIONS),
            features=dict(stage='finetune', layers=('pool5', 'fc7'), images_per_file=64),
            svms=dict(SVMS),
            boxes=dict(BOXES),
            detect=dict(DETECT),
            tx=dict(ADAM),
            run=dict(
                steps=steps,
                log_every='5%',
                evals=dict(test=dict(every='100%')),
                checkpoint=dict(every='50%'),
            ),
            stages=dict(stages),
            target=dict(metric='test/map50', at_least=at_least, ci=False),
        )
    )
    if scales:
        config.scales = dict(scales)
    return config


def small_network(name: str, **arguments: Any) -> dict[str, Any]:
    """Returns a narrow network of R-CNN or SPP-net for regions of 32 pixels.

    name: of the system, such as 'rcnn.rcnn'.
    """
    return dict(
        name=name,
        num_classes=11,  # ten digits and the background
        backbone=dict(name='vgg.vgg11', width=0.25, batch_norm=True, init='he'),  # width: share of the channels
        units=(256, 256),  # of fc6 and fc7
        dropout=0.2,
        **arguments,
    )


def voc(
    model: Mapping[str, Any],
    crop: Mapping[str, Any],
    stages: Mapping[str, Any],
    at_least: float,
    scales: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns the recipe on VOC 2007: trained on trainval, tested on its 4,952 images.

    Args:
      model: name and arguments of the network.
      crop: of the regions.
      stages: in order.
      at_least: mAP of the paper.
      scales: of the maps from which SPP-net computes features.
    """
    config = ConfigDict(
        dict(
            experiment='staged',
            seed=0,
            data=dict(
                name='voc_detection',
                source=dict(path=placeholder(str), years=(2007,), decode=True),  # a folder or a tar
                reading=dict(threads=4, workers=0),
                batch_size=128,  # regions per step of fine-tuning
                objects=dict(
                    most=64,  # objects per image, where batches have images
                    overflow='truncate',  # of an image with more, leaves out the smallest
                ),
                train=dict(split='trainval'),
                evals=dict(test=dict(split='test', year=2007, coco=False)),  # 11 points
            ),
            proposals=dict(
                name='selective_search',
                strategy='fast',
                width=500,  # images are resized to this width first
                max_boxes=2000,
                workers=4,
            ),
            # Pixels in 0..255 less their mean, as the classifiers of configs/classification have them.
            input=dict(mean=(0.485, 0.456, 0.406), std=1 / 255),
            crop=dict(crop),
            finetuning=dict(positive_fraction=0.25, positive_iou=0.5, negative_iou=0.0, flip=0.5, sizes=()),
            model=dict(dtype=placeholder(str), **model),
            regions=dict(REGIONS),
            features=dict(stage='finetune', layers=('pool5', 'fc7'), images_per_file=16),
            svms=dict(SVMS),
            boxes=dict(BOXES),
            detect=dict(DETECT),
            tx=dict(
                # As Caffe: the decay is a part of the gradient; the new classifier learns ten times as fast.
                chain=('decay', 'momentum', 'scale_rates'),
                decay=dict(name='add_decayed_weights', weight_decay=5e-4, where=r'kernel$'),
                momentum=dict(
                    learning_rate=dict(name='step_decay', init=1e-3, steps=(20_000, 40_000, 60_000)), momentum=0.9
                ),
                scale_rates=dict(
                    rules=((r'^logits/kernel$', 10.0), (r'^logits/bias$', 20.0), (r'bias$', 2.0), ('.*', 1.0))
                ),
            ),
            run=dict(
                steps=70_000,
                log_every='100 steps',
                evals=dict(test=dict(every='100%')),
                checkpoint=dict(every='5%'),
                # The run of a classifier, whose layers have no 'backbone/' or 'head/' before their names. For a file of
                # published weights, which is read under the names of this network, set rules=().
                init_from=dict(path=placeholder(str), rules=(('^(backbone|head)/', ''),), new='^logits/'),
            ),
            stages=dict(stages),
            target=dict(metric='test/map50', at_least=at_least, ci=False),
        )
    )
    if scales:
        config.scales = dict(scales)
    return config


def shrink_voc(
    config: ConfigDict, model: Mapping[str, Any], at_least: float, **sections: Mapping[str, Any]
) -> ConfigDict:
    """Returns a paper's recipe on few scenes of large digits, with a small network from scratch and few steps.

    Args:
      config: of the paper.
      model: name and arguments of the network.
      at_least: mAP for the ledger.
      **sections: what changes in the sections of the config.
    """
    with config.unlocked():
        config.data.update(dict(name='digit_scenes', batch_size=128))
        # In place of VOC's arguments.
        config.data.source = dict(num_examples=256, height=96, width=96, sizes=(24, 64), most=3, clutter=2)
        config.data.train.split, config.data.evals.test.split = 'train', 'test[:64]'
        config.data.evals.test.sizes = SIZES
        config.data.reading.threads = 2
        config.proposals.update(dict(width=None, workers=0, scales=(50.0, 200.0), min_size=8, max_boxes=200))
        config.finetuning.flip = 0.0
        config.input = dict(mean=0.45, std=0.25)
        config.model = dict(dtype=placeholder(str), **model)
        for name, values in sections.items():
            config[name].update(values)
        config.tx = dict(ADAM)
        config.run.update(dict(steps=300, log_every='20%', init_from=dict(path=None, rules=(), new=None)))
        config.target.at_least = at_least
    return config
