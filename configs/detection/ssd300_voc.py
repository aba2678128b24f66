"""SSD300 (Liu et al. 2016) on Pascal VOC 07+12, with the augmentation of section 3.6: 77.2 % mAP on the test of 2007.

    ./launch.sh run configs/detection/ssd300_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=timm/vgg16.tv_in1k

The authors' recipe: 120,000 steps of 32 images, SGD with momentum 0.9 and weight decay 5e-4, the rate 1e-3 divided by
10 after 80,000 and 100,000 steps. fc6 and fc7 start from those of the classifier, reduced as in section 3. What differs
from the code: images are resized bilinearly with antialiasing, where training there draws one of five interpolations;
and new layers start from Glorot's rule, where Caffe's counts the inputs alone. Not run here: neither the data nor the
weights are available. `:smoke`, the network of `ssd_digits.py` on digits: see the ledger.
"""

from configs.detection._recipes import SSD, paper, sgd, shrink_ssd, ssd_transforms, voc


def get_config(arg: str = ''):
    config = paper(
        voc(),
        dict(
            name='ssd.ssd300',
            num_classes=21,  # 20 and the background
            sizes='voc',  # of the priors: 10 % of the image and up; 'coco' begins at 7 %
            width=1.0,  # share of VGG-16's channels
            batch_norm=False,
        ),
        dict(SSD, use_difficult=True),  # difficult objects are learnt, but not evaluated
        *ssd_transforms(300),
        sgd(dict(name='step_decay', init=1e-3, steps=('80000 steps', '100000 steps'))),  # divides by 10 at each
        steps='120000 steps',
        batch_size=32,
        metric='map50',  # is checked by the ledger
        at_least=0.77,  # published: 77.2
    )
    return shrink_ssd(config) if arg == 'smoke' else config
