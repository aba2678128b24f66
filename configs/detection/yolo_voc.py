"""YOLO (Redmon et al. 2016) on Pascal VOC 07+12: 63.4 % mAP on the test of 2007.

    ./launch.sh run configs/detection/yolo_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=RUN --config.run.init_from.new='^(conv5_[56]|conv6|fc1|output)'

The paper's recipe (section 2.2): 135 epochs of batches of 64 with momentum 0.9 and weight decay 5e-4; the rate rises
from 1e-3 to 1e-2 and is divided by 10 after 75 and 105 epochs; dropout, jitter of 20 %, exposure and saturation up to a
factor of 1.5. Darknet's gradients are those of half of equation 3, so `scale_rates` has 0.5; it halves the decay as
well, which is therefore twice as large. The first 20 convolutions start from a run of
`configs/classification/yolo_pretraining.py`; the last four and the layers after them are new. Not run here. `:smoke`, a
narrow network on VGG-11 from scratch on digits: see the ledger.
"""

from configs.detection._recipes import YOLO, paper, sgd, shrink, small_yolo, voc

NEW = '^(conv5_[56]|conv6|fc1|output)'  # what a run of ImageNet does not have: for run.init_from.new, with its path


def get_config(arg: str = ''):
    train = dict(
        chain=('yolo_jitter', 'random_hsv', 'random_flip'),
        yolo_jitter=dict(size=448, jitter=0.2),  # scaling and translation
        random_hsv=dict(exposure=1.5, saturation=1.5),  # factors of up to 1.5 or their inverses, in HSV
    )
    config = paper(
        voc(),
        dict(
            name='yolo.yolo',
            num_classes=20,  # no background: the confidence is low where there is no object
            num_boxes=2,  # per cell; the one of the higher IoU learns the object
            size=448,
            width=1.0,  # share of the channels
            batch_norm=False,
            dropout=0.5,  # after the first fully connected layer
        ),
        YOLO,
        train,
        dict(chain=('resize',), resize=dict(size=448)),
        sgd(
            dict(
                name='warmup',
                init=1e-3,
                steps='3 epochs',  # the paper: "for the first epochs"
                then=dict(name='step_decay', init=1e-2, steps=('72 epochs', '102 epochs')),
            ),
            weight_decay=2 * 5e-4,  # halved again by `scale_rates`
        ),
        steps='135 epochs',
        batch_size=64,
        metric='map50',
        at_least=0.63,  # published: 63.4
        input=dict(mean=0.0, std=1.0),  # pixels in 0..1
        # As darknet, all 7 x 7 x 2 boxes, each as every class whose score is above the threshold.
        detect=dict(score_threshold=0.001, iou_threshold=0.5, per_class=98, max_detections=98 * 20),
    )
    config.tx.scale_rates.rules = (('.*', 0.5),)  # half of equation 3; biases learn no faster, unlike Caffe's
    if arg != 'smoke':
        return config
    # Of the paper's networks the convolutions find boxes in 500 steps, but hardly classes.
    return shrink(config, 96, dict(small_yolo(), size=96), 500, 16, 0.4)
