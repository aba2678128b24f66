"""Faster R-CNN (Ren et al. 2015) with VGG-16 on Pascal VOC 07+12, trained jointly: 73.2 % mAP on the test of 2007.

    ./launch.sh run configs/detection/faster_rcnn_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

73.2 % is the paper's figure, by alternating training. The recipe is that of the authors' Python code, joint training:
SGD with momentum 0.9 and weight decay 5e-4, the rate 1e-3 divided by 10 after 50,000 of 70,000 updates, which are for
the images of 07 and are scaled to those of 07+12 here (80,000 of 110,000). An update there averages the gradients of
two images, one after the other; here both are one batch. The shorter side is 600 pixels, unless the longer one would
exceed 1000; conv1 and conv2 stay as they are. What differs: images are padded to one of four sizes, and the weights to
start from are torchvision's, not Caffe's. Not run here: neither the data nor the weights are available. `:smoke`, a
narrow network from scratch on digits: see the ledger.
"""

from configs.detection._recipes import voc
from configs.detection._two_stages import FASTER_RCNN, paper_by_regions, region_sgd, shrink_by_regions


def get_config(arg: str = ''):
    config = paper_by_regions(
        voc(),
        dict(
            name='faster_rcnn.faster_rcnn_vgg16',
            num_classes=21,  # 20 and the background
            width=1.0,  # share of VGG-16's channels and units
            dropout=0.5,  # after both layers of the head
        ),
        FASTER_RCNN,
        region_sgd(dict(name='step_decay', init=1e-3, steps=('80000 steps',))),  # divides by 10
        steps='110000 steps',
        batch_size=2,
        metric='map50',
        at_least=0.73,  # published: 73.2
        # 16 pixels of the photograph; most are enlarged 1.6 times.
        rpn=dict(pre_nms=12000, post_nms=2000, test_pre_nms=6000, test_post_nms=300, min_size=25.6),
        regions=dict(per_image=128, background_low=0.0),
    )
    if arg != 'smoke':
        return config
    narrow = dict(width=0.0625, backbone=dict(batch_norm=True), dropout=0.0, anchor_sizes=(48, 64, 96))
    return shrink_by_regions(config, narrow)
