"""LeNet-5 on scikit-learn's 1,797 handwritten digits: the main job.

    ./launch.sh run configs/classification/lenet_digits.py

A tenth of the training digits is withheld to choose the checkpoint. Measured on 2 CPU cores that others kept busy: 606
steps of 64 images, the whole command 93 s; 99.44 % of the 360 test digits (358). `:smoke`, 404 steps: 99.44 % in 42 s.
Any other images: `--config.data.name=folder`, `npz`, `mnist`, ... with `--config.data.source.path=...` and
`--config.model.num_classes=...`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    resize = dict(size=32)
    plain = dict(chain=('resize',), resize=resize)
    return ConfigDict(
        dict(
            experiment='classification',
            seed=0,
            data=dict(
                name='digits',
                data_dir='~/tensorflow_datasets',
                source=dict(path=placeholder(str), unreadable=placeholder(str)),
                reading=dict(threads=2, workers=0),
                batch_size=64,
                train=dict(
                    split='train[:90%]',
                    sampler='shuffled',
                    transforms=dict(chain=('resize', 'random_shift'), resize=resize, random_shift=dict(pixels=3)),
                ),
                evals=dict(
                    test=dict(split='test', transforms=plain),
                    validation=dict(split='train[90%:]', transforms=plain),  # chooses the checkpoint
                ),
            ),
            input=dict(mean=(0.3,), std=(0.35,)),
            model=dict(name='lenet.lenet5', num_classes=10, dropout=0.2, dtype=placeholder(str)),
            loss=dict(label_smoothing=0.0),
            tx=dict(
                name='adam',
                learning_rate=dict(
                    name='warmup', steps='5%', then=dict(name='cosine', init=3e-3, final=0.0, steps='95%')
                ),
            ),
            run=dict(
                steps='20 epochs' if smoke else '30 epochs',
                log_every='2 epochs',
                evals=dict(test=dict(every='5 epochs'), validation=dict(every='5 epochs')),
                checkpoint=dict(every='10 epochs', best='validation/accuracy', mode='max'),
            ),
            target=dict(metric='test/accuracy', at_least=0.98, ci=True),
        )
    )


def sweep():
    """Learning rates a factor of about three apart."""
    for rate in (3e-4, 1e-3, 3e-3, 1e-2):
        yield {'tx.learning_rate.then.init': rate}
