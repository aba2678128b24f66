"""Faster R-CNN with a feature pyramid on ResNet-50 (Lin et al. 2017) on COCO: AP 37.0 in torchvision.

    ./launch.sh run configs/detection/faster_rcnn_fpn_coco.py --config.data.source.path=COCO \\
        --config.run.init_from.path=timm/resnet50.tv_in1k

torchvision's `fasterrcnn_resnet50_fpn` and its schedule of 26 epochs, 190,600 updates of 16 images: the rate 0.02 after
a warm-up of 1,000 updates, divided by 10 after 16 and 22 epochs, weight decay 1e-4. The shorter
side is 800 pixels, unless the longer one would exceed 1344; the first two stages of the ResNet and all of its norms
stay as they are. The published detector (91 classes) evaluates with `model.num_classes` and category ids of its own.
Not run here: neither the data nor the weights are available. `:smoke`, a narrow network from scratch on digits: see the
ledger.
"""

from configs.detection._two_stages import (
    FASTER_RCNN,
    paper_by_regions,
    region_sgd,
    shrink_by_regions,
    small_faster_rcnn,
)
from configs.detection.ssd300_coco import COCO


def get_config(arg: str = ''):
    tx = region_sgd(
        dict(
            name='warmup',
            steps='1000 steps',
            then=dict(name='step_decay', init=0.02, steps=('116300 steps', '160200 steps')),  # after the warm-up
        ),
        frozen=r'^backbone/backbone/(conv1|bn1|conv2_)',
        weight_decay=1e-4,
    )
    config = paper_by_regions(
        COCO,
        dict(
            name='faster_rcnn.fasterrcnn_resnet50_fpn',
            num_classes=81,  # 80 and the background
            norm='frozen',  # statistics of ImageNet; 'batch' trains them
        ),
        FASTER_RCNN,
        tx,
        steps='190600 steps',
        batch_size=16,
        metric='coco_ap',
        at_least=0.36,  # published: 37.0
        sides=(800, 1344),
        # Per level; torchvision's anchors may reach beyond the image.
        rpn=dict(pre_nms=2000, post_nms=2000, test_pre_nms=1000, test_post_nms=1000, min_size=1e-3, inside_only=False),
        regions=dict(per_image=512, beta=1 / 9),
        iou_threshold=0.5,
    )
    config.detect.per_class = 1000  # all proposals of a test
    # Caffe's double rate of biases is not in this recipe.
    config.tx.scale_rates.rules = (('.*', 1.0),)
    if arg != 'smoke':
        return config
    resnet = dict(name='resnet.resnet18', width=0.25)
    shallow = dict(name='feature_pyramid.feature_pyramid', backbone=resnet, channels=32, batch_norm=True)
    # Of the small scenes a fifth level is needless: the largest digits are 64 pixels high.
    sizes = (8, 11), (16, 22), (32, 45), (64, 90), (110, 140)
    config = shrink_by_regions(config, small_faster_rcnn(backbone=shallow, anchor_sizes=sizes))
    config.regions.per_image = 64
    return config
