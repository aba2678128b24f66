"""MobileNetV2 (Sandler et al. 2018) on ImageNet, as section 6.1 trains it; `:imagenette` on its ten classes.

    ./launch.sh run configs/classification/mobilenet_v2.py               # --config.model.width_multiplier=1.4

RMSProp with decay and momentum 0.9, learning rate 0.045 multiplied by 0.98 every epoch, weight decay 4e-5, batch 96 on
each of 16 workers (1536 here, synchronously). Published top-1 accuracy: 72.0 % at width 1, 74.7 % at 1.4. Not run here:
ImageNet is not available.
"""

from configs.classification._recipes import IMAGENET, data_set, one_crop, recipe, rmsprop, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    config = recipe(
        name=data_set(arg),
        batch_size=1536,  # 16 workers of 96
        train=dict(chain=('decode_random_resized_crop', 'random_flip'), decode_random_resized_crop=dict(size=224)),
        evals=dict(validation=one_crop(224, 256)),
        input=IMAGENET,
        model=dict(name='mobilenet.mobilenet_v2', width_multiplier=1.0, dropout=0.2),  # width_multiplier: of all layers
        tx=rmsprop(0.045, 0.98, '1 epoch', 4e-5, 'kernel$'),  # biases and norms do not decay
        run=dict(steps='300 epochs', log_every=100, eval_every='5 epochs'),
        target=dict(metric='validation/accuracy', at_least=0.72),
    )
    if arg == 'smoke':
        return smoke(config, size=32, batch_size=64, steps=250, model=dict(width_multiplier=0.35), at_least=0.9)
    return config
