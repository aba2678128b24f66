"""MobileNet (Howard et al. 2017) on ImageNet, at four widths and four resolutions; `:imagenette` on its ten classes.

    ./launch.sh sweep configs/classification/mobilenet_v1.py

RMSProp like Inception v3 (section 3.2), with less augmentation and without weight decay on the depthwise filters, as in
the paper; learning rate, decay and length, which it does not give, are MobileNetV2's. Published top-1 accuracy of
widths 1, 0.75, 0.5, 0.25: 70.6, 68.4, 63.7, 50.6 %; of resolutions 192, 160, 128: 69.1, 67.2, 64.4 %. Not run here:
ImageNet is not available.
"""

from configs.classification._recipes import INCEPTION, data_set, one_crop, recipe, rmsprop, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    config = recipe(
        name=data_set(arg),
        batch_size=1536,
        train=dict(
            chain=('decode_random_resized_crop', 'random_flip'),
            decode_random_resized_crop=dict(size=224, scale=(0.35, 1.0)),  # less aggressive crops for small networks
        ),
        evals=dict(validation=one_crop(224, 256)),
        input=INCEPTION,
        model=dict(name='mobilenet.mobilenet_v1', width_multiplier=1.0),
        # The regex leaves the depthwise filters without weight decay.
        tx=rmsprop(0.045, 0.98, '1 epoch', 4e-5, '(pointwise|full|conv1|classifier).*kernel$'),
        run=dict(steps='300 epochs', log_every=100, eval_every='5 epochs'),
        target=dict(metric='validation/accuracy', at_least=0.706),
    )
    if arg == 'smoke':
        return smoke(config, size=32, batch_size=64, steps=400, model=dict(width_multiplier=0.5), at_least=0.9)
    return config


def sweep():
    """Yields tables 6 and 7: each width at 224, each resolution at width 1."""
    for width in (1.0, 0.75, 0.5, 0.25):
        yield {'model.width_multiplier': width}
    for size in (192, 160, 128):
        short = round(size / 224 * 256)
        yield {
            'data.train.transforms.decode_random_resized_crop.size': size,
            'data.evals.validation.transforms.resize_short.size': short,
            'data.evals.validation.transforms.center_crop.size': size,
            'data.evals.withheld.transforms.resize_short.size': short,
            'data.evals.withheld.transforms.center_crop.size': size,
        }
