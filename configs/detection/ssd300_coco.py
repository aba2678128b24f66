"""SSD300 (Liu et al. 2016) on COCO: AP 25.1 on test-dev with the augmentation of section 3.6.

    ./launch.sh run configs/detection/ssd300_coco.py --config.data.source.path=COCO \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

The authors' recipe for COCO: smaller priors (7 % of the image and up), 400,000 steps of 32 images, the rate 1e-3
divided by 10 after 280,000 and 360,000 steps. Crowds are not learnt. What differs from the code is as in
`ssd300_voc.py`. Not run here. `:smoke`, the network of `ssd_digits.py` with smaller priors on digits: see the ledger.
"""

from configs.detection._recipes import SSD, paper, sgd, shrink_ssd, ssd_transforms

COCO = dict(
    name='coco_detection',
    source=dict(invalid='clip'),  # COCO has boxes without area, which are dropped
    objects=dict(most=100, overflow='truncate'),  # of a few images with more the smallest objects are left out
    splits=dict(train='train2017', test='val2017'),
    test=dict(year=2010),  # of map50; coco_ap, COCO's own measure, is computed by default
)


def get_config(arg: str = ''):
    config = paper(
        COCO,
        dict(
            name='ssd.ssd300',
            num_classes=81,  # 80 and the background
            sizes='coco',  # of the priors: 7 % of the image and up; 'voc' begins at 10 %
            width=1.0,  # share of VGG-16's channels
            batch_norm=False,
        ),
        dict(SSD, use_difficult=False),  # COCO marks crowds instead, which are never learnt
        *ssd_transforms(300),
        sgd(dict(name='step_decay', init=1e-3, steps=('280000 steps', '360000 steps'))),
        steps='400000 steps',
        batch_size=32,
        metric='coco_ap',
        at_least=0.25,  # published: 25.1 on test-dev
    )
    return shrink_ssd(config, scale=0.7) if arg == 'smoke' else config
