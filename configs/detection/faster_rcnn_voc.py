"""Faster R-CNN (Ren et al. 2015) with VGG-16 on Pascal VOC 07+12, trained jointly: 73.2 % mAP on the test of 2007.

    ./launch.sh run configs/detection/faster_rcnn_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

73.2 % is the paper's figure, by alternating training. The recipe is that of the authors' Python code, joint training:
SGD with momentum 0.9 and weight decay 5e-4, the rate 1e-3 divided by 10 after 50,000 of 70,000 updates, which are for
the 5,011 images of 07; 07+12 has three times as many, and 80,000 of 110,000 here. An update there averages the
gradients of two images, one after the other; here both are one batch. The shorter side is 600 pixels, unless the longer
one would exceed 1000; conv1 and conv2 stay as they are. What differs: images are padded to one of four sizes, and the
weights to start from are torchvision's, not Caffe's. Not run here: neither the data nor the weights are available.
`:smoke`, the network of `faster_rcnn_alternating_digits.py` on digits: see the ledger.
"""

from configs.detection._recipes import voc
from configs.detection._two_stages import LARGE_ANCHORS, shrink_by_regions, small_single_level, vgg16_on_voc


def get_config(arg: str = ''):
    regions = dict(per_image=128, background_low=0.0)  # proposals that are learnt, and the least IoU of a negative
    config = vgg16_on_voc(voc(), '80000 steps', '110000 steps', 0.73, regions)  # published: 73.2
    small = small_single_level(anchor_sizes=LARGE_ANCHORS)
    return shrink_by_regions(config, small) if arg == 'smoke' else config
