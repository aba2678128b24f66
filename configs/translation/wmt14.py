"""The Transformer on WMT 2014 with the paper's constants: base `:big`; to German, or French by `:en-fr`, `:big-en-fr`.

    ./launch.sh prepare wmt14_translate/de-en
    ./launch.sh run configs/translation/wmt14.py --config.vocabulary.path=~/wmt14.de-en.json
    ./launch.sh eval configs/translation/wmt14.py --config.vocabulary.path=~/wmt14.de-en.json   # the last 5, averaged

Vaswani et al. 2017, section 5: one vocabulary of 37,000 pieces for both languages (32,000 for French), batches of about
25,000 tokens per side, 100,000 steps (big: 300,000), Adam with beta 0.9 and 0.98 and epsilon 1e-9, the rate of eq. 3
with 4,000 steps of warm-up, dropout 0.1 (big: 0.3, and 0.1 for French), label smoothing 0.1 as in tensor2tensor, a beam
of 4 with alpha 0.6, at most 50 tokens longer than the source, and the mean of the last 5 (big: 20) checkpoints, written
every 10 minutes: about every 1,500 (big: 600) of their steps of 0.4 and 1 s on 8 P100.
Published BLEU on newstest2014, tokenised and with compounds split (sacrebleu's is about 0.7 lower): 27.3 and 28.4;
En-Fr 38.1 and 41.8. Not run here: the text has to be downloaded. `:smoke` is the same recipe, with post-norm, on the
interface of JupyterLab; on 2 CPU cores it reaches chrF 37.0, 13.9 above copying the source, in 88 s.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.translation._smoke import shrink

ARGUMENTS = ('smoke', 'big', 'en-fr', 'big-en-fr')


def get_config(arg: str = '') -> ConfigDict:
    big, french = arg.startswith('big'), arg.endswith('en-fr')
    d_model = 1024 if big else 512
    saved = 20 if big else 5
    published = (41.8 if big else 38.1) if french else 28.4 if big else 27.3
    config = ConfigDict(
        dict(
            experiment='translation',
            seed=0,
            data=dict(
                name='wmt14_translate/fr-en' if french else 'wmt14_translate/de-en',
                data_dir=placeholder(str),  # where TFDS sets are
                source=dict(
                    source='en',  # the language that is translated
                    target='fr' if french else 'de',  # and that of the translations
                ),
                train=dict(
                    split='train',
                    tokens=25_000,  # per batch and side, padding included
                    multiple=8,  # of the pairs per batch; the number of devices must divide it
                    buckets=(16, 32, 48, 64, 96, 128, 256),  # longest sides of the pairs of each bucket, in tokens
                ),
                evals=dict(
                    valid=dict(split='validation', batch_size=64, tokenize=placeholder(str)),  # greedy
                    test=dict(split='test', batch_size=64, beams=4, alpha=0.6, extra=50, tokenize=placeholder(str)),
                ),
            ),
            vocabulary=dict(
                shared=True,
                level='subword',
                model_type='bpe',
                size=32_000 if french else 37_000,
                path=placeholder(str),  # a file that keeps it: counting 4.5 million pairs takes minutes
            ),
            model=dict(
                name='transformer.big' if big else 'transformer.base',
                dropout=0.3 if big and not french else 0.1,
                dtype=placeholder(str),  # 'bfloat16' on accelerators
            ),
            loss=dict(label_smoothing=0.1, smoothing='others'),  # over the wrong tokens, as in tensor2tensor
            tx=dict(
                name='adam',
                b1=0.9,
                b2=0.98,
                eps=1e-9,
                learning_rate=dict(
                    name='warmup',
                    steps=4000,
                    then=dict(name='inverse_sqrt', init=(d_model * 4000) ** -0.5, steps=4000),
                ),
            ),
            run=dict(
                steps=300_000 if big else 100_000,
                log_every=100,
                evals=dict(valid=dict(every=5000), test=dict(every='100%')),
                checkpoint=dict(every=600 if big else 1500, keep=saved, average=saved),
            ),
            search=dict(beams=4, alpha=0.6, extra=50),  # of `predict`
            target=dict(metric='test/bleu', at_least=published - 1.0),
        )
    )
    return shrink(config) if arg == 'smoke' else config
