"""AWD-LSTM (Merity, Keskar & Socher 2018) on the words of Penn Treebank; `:wikitext2` on WikiText-2.

    ./launch.sh run configs/language_modelling/awd_lstm.py --config.data.source.path=PTB    # ptb.{train,valid,test}.txt

The constants are those of the authors' README: three layers of 1,150, 400-wide tied embeddings; dropout 0.4 on outputs,
0.25 between layers (WikiText-2: 0.2), 0.4 on embeddings (0.65), 0.1 of words, 0.5 of recurrent weights; activation
penalties 2 and 1; SGD at rate 30, averaged from when the validation loss has not improved for 5 epochs (NT-ASGD), decay
1.2e-6, gradients clipped at 0.25, batches of 20 streams in windows of about 70 words, 500 epochs (750). Published test
perplexities without fine-tuning: 58.8 (PTB), 65.6 (WikiText-2). One difference: the gradient of a window is the mean
over its own words, where theirs scales the learning rate with the length of the window. Not run here: neither text is
available. `:smoke` is the same recipe, 128 wide, on the words of Python's documentation, compared with a Kneser-Ney
5-gram. Measured on 2 CPU cores: 18 epochs reach perplexity 46.0, the 5-gram has 49.7, in 185 s while other jobs ran.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

ARGUMENTS = ('smoke', 'wikitext2')


def get_config(arg: str = '') -> ConfigDict:
    smoke, wikitext = arg == 'smoke', arg == 'wikitext2'
    evaluation = dict(batch_size=10, length=70, ngram=5)  # streams in parallel; words per window; order of the baseline
    model: dict[str, Any] = dict(name='rnn_lm.awd_lstm')
    if wikitext:
        model |= dict(dropout_hidden=0.2, dropout_input=0.65)
    if smoke:
        model |= dict(embed=128, hidden=192, layers=2, dropout_input=0.2)
    return ConfigDict(
        dict(
            experiment='language_modelling',
            seed=0,
            data=dict(
                name='pydoc' if smoke else 'wikitext' if wikitext else 'ptb',
                data_dir=placeholder(str),  # where TFDS sets are
                source=dict(path=placeholder(str)),  # the folder of the text
                train=dict(
                    batch_size=20,  # streams of text
                    length=35 if smoke else 70,  # mean words of a window
                    deviation=2.0 if smoke else 5.0,  # of the windows' lengths; 0 makes all equal
                ),
                evals=dict(valid=dict(evaluation, split='valid'), test=dict(evaluation, split='test', batch_size=1)),
            ),
            # PTB and WikiText come split into words, with '<unk>' for the rare ones; Python's documentation is plain
            # text, so that its words are split here, and those that occur once are unknown.
            vocabulary=dict(level='word', min_count=2, split='punctuation') if smoke else dict(level='word'),
            model=model,
            loss=dict(
                weight_dropout=0.2 if smoke else 0.5,  # DropConnect on recurrent weights
                activation=2.0,  # alpha, the penalty on large outputs
                slowness=1.0,  # beta, the penalty on changes of the outputs
            ),
            tx=dict(
                chain=('decay', 'clip', 'sgd', 'average_on_plateau'),
                decay=dict(name='add_decayed_weights', weight_decay=1.2e-6),  # coupled, added to the gradient
                clip=dict(name='clip_by_global_norm', max_norm=0.25),  # norm of the whole gradient
                sgd=dict(learning_rate=30.0),  # per word of the mean loss
                average_on_plateau=dict(metric='valid/loss', mode='min', patience=5),  # NT-ASGD
            ),
            run=dict(
                steps='18 epochs' if smoke else '750 epochs' if wikitext else '500 epochs',
                log_every='4%' if smoke else 200,
                evals=dict(valid=dict(every='1 epoch'), test=dict(every='100%')),
                checkpoint=dict(every='25%' if smoke else '1 epoch', best='valid/loss', mode='min'),
            ),
            # For `predict`: words and texts per prompt; top_p samples from the likeliest words of this total
            # probability.
            sample=dict(length=100, count=2, temperature=1.0, top_k=placeholder(int), top_p=0.95, seed=0),
            target=dict(metric='test/perplexity', at_most=52.0 if smoke else 66.0 if wikitext else 59.0),
        )
    )
