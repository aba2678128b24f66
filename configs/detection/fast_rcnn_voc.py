"""Fast R-CNN (Girshick 2015) with VGG-16 on Pascal VOC 2007: 66.9 % mAP.

    ./launch.sh run configs/detection/fast_rcnn_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

The paper's recipe: 40,000 updates of two images with 64 proposals each, a quarter of them objects (IoU 0.5), the others
with an IoU of 0.1 to 0.5; the rate 1e-3 divided by 10 after 30,000; conv1 and conv2 stay as they are. About 2,000
proposals of selective search are computed once, by the first stage. The targets of the boxes are divided by 0.1 and
0.2, as later in py-faster-rcnn, where the authors' code measures the standard deviations of each class. The weights to
start from are torchvision's, not Caffe's. Not run here: neither the data nor the weights are available. `:smoke`, the
network of `fast_rcnn_digits.py` on digits: see the ledger.
"""

from configs.detection._recipes import voc
from configs.detection._two_stages import FAST_RCNN, paper_by_regions, region_sgd, shrink_by_regions, small_head


def get_config(arg: str = ''):
    data = voc()
    data['splits'] = dict(train='2007-trainval', test='2007-test')
    config = paper_by_regions(
        data,
        dict(
            name='fast_rcnn.fast_rcnn_vgg16',
            num_classes=21,  # 20 and the background
            width=1.0,  # share of VGG-16's channels and units
            dropout=0.5,  # after both layers of the head
        ),
        FAST_RCNN,
        region_sgd(dict(name='step_decay', init=1e-3, steps=('30000 steps',))),  # divides by 10
        steps='40000 steps',
        batch_size=2,
        metric='map50',
        at_least=0.66,  # published: 66.9
        regions=dict(per_image=64, background_low=0.1),
    )
    config.detect.per_class = 2000  # all proposals
    most, search = 2000, dict(width=500, workers=4)  # proposals per image; workers: processes that search
    if arg == 'smoke':
        config = shrink_by_regions(config, dict(name='fast_rcnn.fast_rcnn', **small_head()))
        config.data.source.num_examples = 256  # each is searched for about 0.2 s
        most, search = 300, dict(width=None, workers=0)
    with config.unlocked():
        config.experiment = 'staged'
        config.data.proposals = dict(stage='proposals', most=most)
        config.proposals = dict(name='selective_search', strategy='fast', **search)
        config.stages = dict(
            experiment='detection',
            chain=('proposals', 'detector'),
            proposals=dict(experiment='region_proposals'),
            detector=dict(),
        )
    return config
