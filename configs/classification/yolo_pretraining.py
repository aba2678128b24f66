"""The classifier that YOLO is pretrained as (Redmon et al. 2016, section 2.2) on ImageNet: its first 20 convolutions.

    ./launch.sh run configs/classification/yolo_pretraining.py --workdir=runs/yolo_pretraining
    ./launch.sh run configs/detection/yolo_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=runs/yolo_pretraining --config.run.init_from.new='^(conv5_[56]|conv6|fc1|output)'

Published: 88 % top-5 accuracy with one crop of 224. The paper states neither optimizer nor augmentation: crops of 224
of images with a shorter side of 256, and mirror images, are darknet's, the rest is VGG's. Darknet minimises squared
errors, this recipe the cross entropy. Not run here: ImageNet is not available.
"""

from configs.classification._recipes import data_set, momentum, one_crop, recipe, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    config = recipe(
        name=data_set(arg),
        batch_size=128,
        train=dict(
            chain=('decode', 'scale_jitter', 'random_flip'),
            scale_jitter=dict(size=224, low=256, high=256),  # one scale: a random crop of 224
        ),
        evals=dict(validation=one_crop(224, 256)),
        input=dict(mean=(0.0,), std=(1.0,)),  # pixels in 0..1, as the detector takes them
        model=dict(name='yolo.yolo_classifier', batch_norm=False),
        tx=momentum(0.01, 5e-4, plateau=dict(metric='withheld/accuracy', mode='max', patience=3)),
        run=dict(steps='90 epochs', log_every=100, eval_every='1 epoch'),
        target=dict(metric='validation/top5_accuracy', at_least=0.88),
    )
    if arg == 'imagenette':
        config.target = dict(metric='validation/accuracy', at_least=0.9)
    if arg == 'smoke':
        # Twenty convolutions without normalisation do not learn from scratch in so few steps.
        model = dict(width=0.125, stride=8, batch_norm=True)
        config = smoke(config, size=32, batch_size=32, steps=400, model=model, at_least=0.9)
        config.tx.momentum.learning_rate = 0.05
    return config
