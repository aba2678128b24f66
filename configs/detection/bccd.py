"""SSD on photographs of blood cells: BCCD, 364 images in the layout of Pascal VOC, three classes.

    ./launch.sh run configs/detection/bccd.py --config.data.source.path=bccd.tar

The path is that of the folder or of its tar. Images of 480x640 are reduced to 192x256. Training is from scratch, on
the list `trainval` (292 images); the list `test` (72 images) is evaluated. Augmentation: SSD's colours, canvas and
crops, less extreme than for VOC. `:smoke` takes scenes of digits instead.

Measured on 2 CPU cores shared with other jobs: mAP 88.0 % on the test images in 29 minutes, 20 of CPU time. `:smoke` is
not measured.
"""

from ml_collections.config_dict import placeholder

from configs.detection._recipes import SSD, scenes

CLASSES = ('RBC', 'WBC', 'Platelets')


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    model = dict(
        name='ssd.ssd',
        num_classes=11 if smoke else 4,  # with the background
        backbone=dict(name='resnet.resnet18', width=0.375),  # share of the channels
        stages=('conv3_x', 'conv4_x', 'conv5_x'),  # strides 8, 16 and 32
        extras=(),  # no coarser maps: the largest cells are 40 % of the shorter side
        sizes=(0.08, 0.18, 0.3, 0.5),  # platelets are 8 % of the shorter side, red cells 21 %, white cells 40 %
        aspect_ratios=((1.5,),) * 3,  # per map, and their inverses: cells are about round
    )
    system = dict(SSD, threshold=0.45)  # IoU from which a prior is matched
    if smoke:
        few = dict(height=96, width=128, sizes=(24, 64), most=4, clutter=2)
        return scenes(model, system, 600, 0.3, num_examples=2048, test=128, source=few)
    resize = dict(size=(192, 256))
    config = scenes(model, system, 3000, 0.75, batch_size=8, rate=0.015)
    config.data.name = 'voc_detection'
    with config.unlocked():
        # Boxes that reach outside of their image are clipped, or dropped if nothing is left.
        config.data.source = dict(path=placeholder(str), class_names=CLASSES, invalid='clip')
        config.data.objects.most = 32  # per image; an image with more is an error
        config.data.train = dict(
            split='trainval',
            sampler='shuffled',
            transforms=dict(
                chain=('resize', 'ssd_photometric', 'expand', 'min_iou_crop', 'again', 'random_flip'),
                resize=resize,  # before the cache: once per image
                expand=dict(limit=1.5, p=0.3),  # 4.0 and 0.5 for VOC: platelets would become a few pixels
                min_iou_crop=dict(overlaps=(0.5, 0.7, 0.9), scale=(0.5, 1.0)),  # patches of a quarter or more
                again=dict(name='resize', **resize),
            ),
        )
        config.data.evals = dict(
            test=dict(
                split='test',
                transforms=dict(chain=('resize',), resize=resize),
                sizes=(60.0, 120.0),  # in pixels of the photographs
                year=2010,
                coco=True,
            )
        )
    return config
