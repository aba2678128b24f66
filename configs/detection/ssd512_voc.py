"""SSD512 (Liu et al. 2016) on Pascal VOC 07+12, with the augmentation of section 3.6: 79.8 % mAP on the test of 2007.

    ./launch.sh run configs/detection/ssd512_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

The recipe is that of `ssd300_voc.py` on images of 512x512, with seven feature maps and 24,564 priors. Not run here.
`:smoke`, the network of `ssd_digits.py` with a fifth map on digits: see the ledger.
"""

from configs.detection._recipes import SSD, paper, sgd, shrink_ssd, ssd_transforms, voc


def get_config(arg: str = ''):
    config = paper(
        voc(),
        dict(
            name='ssd.ssd512',
            num_classes=21,  # 20 and the background
            sizes='voc',  # of the priors: 35 pixels and up; 'coco' begins at 20
            width=1.0,  # share of VGG-16's channels
            batch_norm=False,
        ),
        dict(SSD, use_difficult=True),  # difficult objects are learnt, but not evaluated
        *ssd_transforms(512),
        sgd(dict(name='step_decay', init=1e-3, steps=('80000 steps', '100000 steps'))),  # divides by 10 at each
        steps='120000 steps',
        batch_size=32,
        metric='map50',
        at_least=0.79,  # published: 79.8
    )
    return shrink_ssd(config, maps=5) if arg == 'smoke' else config
