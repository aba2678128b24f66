"""A Transformer for a folder of parallel files as large as Multi30k (29,000 sentences).

    ./launch.sh run configs/translation/folder.py --config.data.source.path=FOLDER

FOLDER holds train.de, train.en, val.de, val.en, test.de and test.en, or the same with .gz, one sentence per line; other
languages by --config.data.source.source=... and .target=... Multi30k names its files so, except for the test set: link
test_2016_flickr.de as test.de.
The recipe is that of fairseq for IWSLT, narrower because there is less text: 3 + 3 layers of 256, 4 heads, dropout 0.3,
label smoothing 0.1, weight decay 1e-4, Adam with beta 0.9 and 0.98 at 5e-4 after 4,000 steps of warm-up, 10,000 joint
BPE pieces, the mean of the last 5 checkpoints. `:smoke` is the same on the interface of JupyterLab.
Not run on Multi30k here. `:smoke` on 2 CPU cores: chrF 43.2, 20.1 above copying the source, in 77 s.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.translation._smoke import shrink


def get_config(arg: str = '') -> ConfigDict:
    evaluation = dict(
        batch_size=64,
        extra=20,  # tokens that a translation may have more than its source
        longer='cut',  # pairs longer than the last bucket: 'cut', 'skip' or 'refuse'
        tokenize=placeholder(str),  # of BLEU, by sacrebleu; None is that of the target language, '13a' for most
    )
    config = ConfigDict(
        dict(
            experiment='translation',
            seed=0,
            data=dict(
                name='files',
                data_dir=placeholder(str),  # where TFDS sets are
                source=dict(path=placeholder(str), source='de', target='en'),  # folder, and the endings of its files
                train=dict(
                    split='train',  # train.de and train.en
                    tokens=4096,  # per batch and side, padding included
                    buckets=(12, 16, 24, 32, 48, 80),  # longest sides of the pairs of each bucket, in tokens
                ),
                evals=dict(
                    valid=dict(evaluation, split='val'),  # greedy
                    test=dict(evaluation, split='test', beams=4, alpha=0.6, bounds=(5, 10, 20)),
                ),
            ),
            vocabulary=dict(
                shared=True,  # one vocabulary, and one embedding, for both languages
                level='subword',
                model_type='bpe',
                size=10_000,
                path=placeholder(str),  # a file that keeps the vocabulary
            ),
            model=dict(
                name='transformer.transformer',
                layers=3,
                d_model=256,
                d_ff=512,
                heads=4,
                dropout=0.3,
                norm='pre',
                dtype=placeholder(str),  # 'bfloat16' on accelerators
            ),
            loss=dict(label_smoothing=0.1, smoothing='others'),  # over the wrong tokens, as in fairseq
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
                checkpoint=dict(every='1 epoch', keep=5, average=5),  # the mean of the last 5 is evaluated at the end
            ),
            search=dict(beams=4, alpha=0.6, extra=20),  # of `predict`
            target=dict(metric='test/gain', at_least=12.0),
        )
    )
    return shrink(config, norm='pre') if arg == 'smoke' else config
