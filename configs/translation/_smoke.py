"""Shrinks a Transformer recipe for `:smoke`: the same update rule on the interface of JupyterLab, in a minute."""

from ml_collections import ConfigDict

_WARMUP, _RATE = 150, 3e-3  # steps, and the rate they lead to


def shrink(config: ConfigDict, norm: str = 'post') -> ConfigDict:
    """Returns `config` with 2 + 2 layers of 96 over 2,000 joint pieces, for 12 epochs; optimizer and loss stay."""
    # extra: tokens that a translation may have more than its source; longer: pairs beyond the last bucket are left out.
    evaluation = dict(batch_size=64, extra=8, longer='skip')
    data, model = config.data, dict(layers=2, d_model=96, d_ff=192, heads=4, dropout=0.1, norm=norm)
    with config.unlocked():
        data.name = 'catalogue'
        data.source = dict(package='jupyterlab-language-pack-fr-FR', language='fr_FR')
        # Tokens per batch and side; longest sides of the buckets.
        data.train = dict(split='train', tokens=1200, buckets=(10, 24))
        data.evals = dict(
            valid=dict(evaluation, split='valid'),
            test=dict(evaluation, split='test', beams=4, alpha=0.6, bounds=(2, 4, 8)),
        )
        config.vocabulary.size = 2000
        config.model = dict(name='transformer.transformer', **model)
        config.tx.learning_rate = dict(
            name='warmup', steps=_WARMUP, then=dict(name='inverse_sqrt', init=_RATE, steps=_WARMUP)
        )
        config.run = dict(
            steps='12 epochs',
            log_every='4%',
            evals=dict(valid=dict(every='100%'), test=dict(every='100%')),
            checkpoint=dict(every='5%', keep=5, average=5),  # the mean of the last five is handed on
        )
        config.target = dict(metric='test/gain', at_least=12.0)  # chrF above that of copying the source
    return config
