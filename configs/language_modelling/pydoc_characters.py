"""A character-level LSTM on Python's own documentation, compared with a Kneser-Ney 5-gram of the same text.

    ./launch.sh run configs/language_modelling/pydoc_characters.py            # `:smoke` shrunk to a minute
    ./launch.sh predict --workdir=runs/language_modelling/pydoc_characters/default --input='The statement '

The text comes with Python (`pydoc_data.topics`, 308,400 characters to train on in 3.11.7); whole topics are held out.
`gain` is the number of bits per character that the network needs less than the n-gram model, whose 1.992 (test) and
1.796 (valid) are computed in the same run. Measured on 2 CPU cores: `:smoke`, 3,600 steps, 1.928 on test, a gain of
0.064, in 86 s; 4,500 steps reach 1.889. The full form has not been run to its end.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    # Streams of text that are read in parallel, and characters of a window of truncated backpropagation.
    streams = dict(batch_size=16, length=32) if smoke else dict(batch_size=32, length=64)
    return ConfigDict(
        dict(
            experiment='language_modelling',
            seed=0,
            data=dict(
                name='pydoc',
                data_dir=placeholder(str),  # where TFDS sets are
                source=dict(path=placeholder(str)),  # of data.name=text: a file or a folder
                train=streams,
                evals=dict(
                    test=dict(
                        split='test', batch_size=8, length=64, ngram=5
                    ),  # ngram: order of the baseline; 0 is none
                    valid=dict(split='valid', batch_size=8, length=64, ngram=5),
                ),
            ),
            vocabulary=dict(level='character', size=placeholder(int)),  # size: of the most frequent; None takes all
            model=dict(
                name='rnn_lm.language_model',
                cell='lstm',  # or 'gru', 'rnn'
                embed=64,
                hidden=320 if smoke else 512,
                layers=1 if smoke else 2,
                dropout=0.25 if smoke else 0.4,  # on the last layer's outputs
                dropout_hidden=0.0 if smoke else 0.2,  # between layers
            ),
            loss=dict(label_smoothing=0.0, weight_dropout=0.0),  # weight_dropout: of recurrent weights
            tx=dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=1.0),
                adam=dict(
                    learning_rate=dict(
                        name='warmup', steps='2%', then=dict(name='cosine', init=4e-3, final=0.0, steps='98%')
                    )
                ),
            ),
            run=dict(
                steps=3600 if smoke else '40 epochs',
                log_every='4%',
                evals=dict(valid=dict(every='25%'), test=dict(every='50%')),
                checkpoint=dict(every='25%', best='valid/loss', mode='min'),
            ),
            sample=dict(length=400, count=2, temperature=0.8, top_p=0.95, seed=0),  # of `predict`; count: per prompt
            target=dict(metric='test/gain', at_least=0.02 if smoke else 0.1),
        )
    )
