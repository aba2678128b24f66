"""Inception v3 (Szegedy et al. 2016, "Rethinking") on ImageNet; `:imagenette` on its ten classes.

    ./launch.sh run configs/classification/inception_v3.py

Section 8 of the paper: RMSProp with decay 0.9 and epsilon 1.0, learning rate 0.045 multiplied by 0.94 every two epochs,
gradients clipped at 2.0, 100 epochs, batch 32 on each of 50 replicas (1600 here, synchronously), label smoothing 0.1
(section 7), averaged parameters. Published: 21.2 % top-1 and 5.6 % top-5 error on one crop. Not run here: ImageNet is
not available.
"""

from configs.classification._recipes import INCEPTION, data_set, one_crop, recipe, rmsprop, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    # Stabilises training, as the paper reports (section 8).
    clip = dict(name='clip_by_global_norm', max_norm=2.0)
    config = recipe(
        name=data_set(arg),
        batch_size=1600,  # 50 replicas of 32
        train=dict(
            chain=('decode_random_resized_crop', 'random_flip', 'colour_jitter'),
            decode_random_resized_crop=dict(size=299),
        ),
        evals=dict(validation=one_crop(299, 342)),  # 8/7 of the crop, as 256 is of 224
        input=INCEPTION,
        model=dict(name='inception.inception_v3', dropout=0.2),
        tx=rmsprop(0.045, 0.94, '2 epochs', 4e-5, 'kernel$', clip=clip),
        run=dict(steps='100 epochs', log_every=100, eval_every='1 epoch'),
        target=dict(metric='validation/accuracy', at_least=0.788),
        loss=dict(
            label_smoothing=0.1,
            auxiliary=0.4,  # weight of the auxiliary head, as in TF-Slim
        ),
    )
    if arg == 'smoke':
        # For 32 images instead of 1600. The first gradients have a norm of 850, of which a clip at 2 leaves next to
        # nothing.
        config.tx.rate.learning_rate.init, config.tx.clip.max_norm = 0.0045, 1000.0
        return smoke(config, size=75, batch_size=32, steps=350, model=dict(auxiliary=False, width=0.5), at_least=0.9)
    return config
