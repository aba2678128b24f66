"""Isolated handwritten Chinese characters of CASIA-HWDB 1.1: the 3,755 classes of level 1 of GB 2312-80.

    ./launch.sh run configs/text_recognition/gb2312.py --config.data.source.path=~/data/HWDB1.1

The folder has the `.gnt` files, a file per writer, of 240 writers below a folder with 'trn' in its name and of 60 below
one with 'tst' (docs/text_data.md). The network is HCCR-CNN9Layer (Xiao et al. 2017); schedule and augmentation by small
rotations, slants and scales are ours. Published networks read about 97 % of the characters of ICDAR 2013's competition,
whose test set has 60 other writers, and people about 96 %.

Not run here. `:smoke` draws the first 200 characters in Song, Kai and Hei instead, since a few minutes are too few for
3,755 classes, and reads 99.5 % of other renderings. The fonts are those of Debian:

    apt-get install fonts-arphic-gbsn00lp fonts-arphic-gkai00mp fonts-wqy-zenhei

or any folder that has them, `--config.data.source.fonts=FOLDER` (docs/handwriting.md). Lines: `gb2312_lines.py`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition._lines import muon

# What is drawn keeps its aspect, and is turned, slanted, distorted and blurred a little: fonts vary less than hands.
PRINTING = dict(
    chain=('render_text', 'project_layers', 'merge_layers', 'add_noise'),
    project_layers=dict(yaw=15.0, pitch=15.0, roll=8.0, shear=0.2),
    merge_layers=dict(margin=(0.0, 0.15)),
    add_noise=dict(p=0.4, elastic=1.5, blur=0.8, jpeg=(50, 95)),
)


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    size = 48 if smoke else 96
    fit = dict(chain=('letterbox',), letterbox=dict(size=size, value=255))  # in the middle of white paper
    augment = dict(
        chain=('letterbox', 'random_affine'),
        letterbox=dict(size=size, value=255),
        random_affine=dict(degrees=8.0, translate=0.04, scale=(0.9, 1.1), shear=0.2, fill=255, p=0.8),
    )
    handwriting = dict(
        path=placeholder(str),  # the folder with the .gnt files
        characters='gb2312_level1',  # of the classes; 'gb2312_levels' adds 3,008 of level 2, which HWDB 1.1 lacks
    )
    printed = dict(
        count=200,  # of the characters, the first ones; None for all 3,755
        num_examples=9_600,  # of each split, in other renderings
        fonts='chinese',  # those of Debian, or a folder
        size=size,
        stages=PRINTING,
    )
    return ConfigDict(
        dict(
            experiment='classification',
            seed=0,
            data=dict(
                name='rendered_characters' if smoke else 'casia_classes',
                source=printed if smoke else handwriting,
                reading=dict(
                    threads=2 if smoke else 8,  # that prepare batches ahead
                    workers=0,  # processes that do it instead
                    memory_limit=1 << 30 if smoke else 0,  # bytes up to which images are kept before the transforms
                ),
                batch_size=64 if smoke else 256,
                train=dict(
                    split='train' if smoke else 'train[:98%]',  # the rest, other writers, chooses the checkpoint
                    sampler='shuffled',
                    transforms=dict(chain=()) if smoke else augment,  # what is drawn differs already
                ),
                evals=dict(
                    validation=dict(
                        split='validation[:500]' if smoke else 'train[98%:]',
                        transforms=dict(chain=()) if smoke else fit,
                    ),
                    test=dict(split='test[:1000]' if smoke else 'test', transforms=dict(chain=()) if smoke else fit),
                ),
            ),
            input=dict(mean=(1.0,), std=(0.5,)),  # of grey pixels in [0, 1]: white is 0, as what convolutions pad with
            model=dict(
                name='hccr.hccr_cnn9',
                num_classes=200 if smoke else 3755,
                width=0.25 if smoke else 1.0,  # factor of channels and units
                dropout=0.0 if smoke else 0.5,  # before the last layer
                dtype=placeholder(str),  # 'bfloat16' for activations of half the memory
            ),
            loss=dict(label_smoothing=0.0),
            tx=muon() if smoke else _momentum(),
            run=dict(
                steps='900 steps' if smoke else '40 epochs',
                log_every='50 steps' if smoke else '200 steps',
                evals=dict(
                    validation=dict(every='300 steps' if smoke else '1 epoch'),
                    test=dict(every='100%' if smoke else '10 epochs'),
                ),
                checkpoint=dict(every='300 steps' if smoke else '1 epoch', best='validation/accuracy', mode='max'),
            ),
            target=dict(metric='test/accuracy', at_least=0.97 if smoke else 0.94, ci=False),
        )
    )


def _momentum() -> dict:
    return dict(
        chain=('decay', 'momentum'),
        decay=dict(name='add_decayed_weights', weight_decay=5e-4),
        momentum=dict(
            learning_rate=dict(name='step_decay', init=0.1, steps=('40%', '70%', '90%')),
            momentum=0.9,
        ),
    )
