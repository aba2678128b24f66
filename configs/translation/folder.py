"""A Transformer for a folder of parallel files as large as Multi30k (29,000 sentences).

    ./launch.sh run configs/translation/folder.py --config.data.source.path=FOLDER

FOLDER holds train.de, train.en, val.de, val.en, test.de and test.en, or the same with .gz, a sentence a line; other
languages by --config.data.source.source=... and .target=... Multi30k's own names are those, but for its test set: link
test_2016_flickr.de as test.de.
The form is that of fairseq's IWSLT recipe, narrower, for so little text: 3 + 3 layers of 256, 4 heads, dropout 0.3,
label smoothing 0.1, weight decay 1e-4, Adam with beta 0.9 and 0.98 at 5e-4 after 4,000 steps of warm-up, 10,000 joint
pieces by BPE, the mean of the last 5 checkpoints. `:smoke` is the same on what JupyterLab says.
Not run on Multi30k here. `:smoke` on 2 CPU cores: chrF 43.2, 20.1 above copying the source, in 77 s.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.translation._smoke import shrunk


def get_config(arg: str = '') -> ConfigDict:
    # tokenize: BLEU's, of sacrebleu; None is the target language's: 'zh' of Chinese, else '13a'.
    evaluated = dict(batch_size=64, extra=20, longer='cut', tokenize=placeholder(str))
    config = ConfigDict(
        dict(
            experiment='translation',
            seed=0,
            data=dict(
                name='files',
                data_dir=placeholder(str),
                source=dict(path=placeholder(str), source='de', target='en'),
                train=dict(split='train', tokens=4096, buckets=(12, 16, 24, 32, 48, 80)),
                evals=dict(
                    valid=dict(evaluated, split='val'),
                    test=dict(evaluated, split='test', beams=4, alpha=0.6, bounds=(5, 10, 20)),
                ),
            ),
            vocabulary=dict(shared=True, level='subword', model_type='bpe', size=10_000, path=placeholder(str)),
            model=dict(
                name='transformer.transformer',
                layers=3,
                d_model=256,
                d_ff=512,
                heads=4,
                dropout=0.3,
                norm='pre',
                dtype=placeholder(str),
            ),
            loss=dict(label_smoothing=0.1, smoothing='others'),
            tx=dict(
                name='adamw',
                b1=0.9,
                b2=0.98,
                weight_decay=1e-4,
                learning_rate=dict(name='warmup', steps=4000, then=dict(name='inverse_sqrt', init=5e-4, steps=4000)),
            ),
            run=dict(
                steps='100 epochs',
                log_every='4%',
                evals=dict(valid=dict(every='5%'), test=dict(every='100%')),
                checkpoint=dict(every='1 epoch', keep=5, average=5),
            ),
            search=dict(beams=4, alpha=0.6, extra=20),
            target=dict(metric='test/gain', at_least=12.0),
        )
    )
    return shrunk(config, norm='pre') if arg == 'smoke' else config
