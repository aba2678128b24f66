"""LeNet-5 on scikit-learn's 1,797 handwritten digits: the main job.

    ./launch.sh run configs/classification/lenet_digits.py

A tenth of the training digits is withheld to choose the checkpoint. Measured on 2 CPU cores shared with other work: 606
steps of 64 images, the whole command 93 s; 99.44 % of the 360 test digits (358). `:smoke`, 404 steps: 99.44 % in 42 s.
For other images: `--config.data.name=folder`, `npz`, `mnist`, ... with `--config.data.source.path=...` and
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
                name='digits',  # or 'folder', 'npz', 'mnist', ...: a data set of canon.data or TFDS
                data_dir='~/tensorflow_datasets',  # where `./launch.sh prepare` puts TFDS data
                source=dict(
                    path=placeholder(str),  # of a folder with a subfolder per class, or of an .npz
                    unreadable=placeholder(str),  # 'skip' leaves out image files that cannot be read
                ),
                reading=dict(
                    threads=2,  # that prepare batches ahead
                    workers=0,  # processes that do it instead of threads; 0 for none
                ),
                batch_size=64,  # over all devices
                train=dict(
                    split='train[:90%]',  # the rest chooses the checkpoint
                    sampler='shuffled',
                    # 8x8 digits at LeNet's 32x32, shifted by up to 3 pixels: the augmentation
                    transforms=dict(chain=('resize', 'random_shift'), resize=resize, random_shift=dict(pixels=3)),
                ),
                evals=dict(
                    test=dict(split='test', transforms=plain),
                    validation=dict(split='train[90%:]', transforms=plain),  # chooses the checkpoint
                ),
            ),
            input=dict(mean=(0.3,), std=(0.35,)),  # of the digits' pixels in [0, 1]
            model=dict(
                name='lenet.lenet5',  # any network of canon.models
                num_classes=10,
                dropout=0.2,  # on F6; 0 in the paper
                dtype=placeholder(str),  # 'bfloat16' for activations of half the memory
            ),
            loss=dict(label_smoothing=0.0),
            tx=dict(
                name='adam',
                learning_rate=dict(  # linear warm-up over 5 % of the run, then a cosine to 0
                    name='warmup', steps='5%', then=dict(name='cosine', init=3e-3, final=0.0, steps='95%')
                ),
            ),
            run=dict(
                steps='20 epochs' if smoke else '30 epochs',
                log_every='2 epochs',
                evals=dict(test=dict(every='5 epochs'), validation=dict(every='5 epochs')),
                checkpoint=dict(every='10 epochs', best='validation/accuracy', mode='max'),  # keeps the best one
            ),
            target=dict(metric='test/accuracy', at_least=0.98, ci=True),  # what the ledger and CI check
        )
    )


def sweep():
    """Yields learning rates a factor of about three apart."""
    for rate in (3e-4, 1e-3, 3e-3, 1e-2):
        yield {'tx.learning_rate.then.init': rate}
