"""Faster R-CNN in four steps (Ren et al. 2015, section 3.2) with VGG-16 on Pascal VOC 2007: 69.9 % mAP.

    ./launch.sh run configs/detection/faster_rcnn_alternating_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

The recipe of the authors' code: 80,000, 40,000, 80,000 and 40,000 updates at the rate 1e-3, divided by 10 after three
quarters of each; one image per update for proposals, two for Fast R-CNN with 64 proposals each; the last layers of Fast
R-CNN are drawn anew in step 4. In steps 3 and 4 all convolutions stay as they are, before that conv1 and conv2 do.
Negatives have an IoU of 0.1 or more with an object, as in the authors' MATLAB code; their Python code takes all. The
weights to start from are torchvision's, not Caffe's. Not run here: neither the data nor the weights are available.
`:smoke`, the network of `faster_rcnn_alternating_digits.py` on digits: see the ledger.
"""

from configs.detection._recipes import voc
from configs.detection._two_stages import LARGE_ANCHORS, alternate, shrink_by_regions, small_single_level, vgg16_on_voc

STEPS = dict(rpn=80_000, fast=40_000, shared_rpn=80_000, shared_fast=40_000)


def get_config(arg: str = ''):
    data = voc()
    data['splits'] = dict(train='2007-trainval', test='2007-test')
    regions = dict(per_image=64, background_low=0.1)  # proposals that are learnt, and the least IoU of a negative
    config = vgg16_on_voc(data, '75%', '40000 steps', 0.69, regions)  # published: 69.9
    if arg == 'smoke':
        small = shrink_by_regions(config, small_single_level(anchor_sizes=LARGE_ANCHORS))
        return alternate(small, dict(rpn=120, fast=250, shared_rpn=80, shared_fast=120))
    one = dict(data=dict(batch_size=1))  # images per update of proposals
    return alternate(config, STEPS, dict(rpn=one, shared_rpn=one), frozen=r'^backbone/conv[12]_')
