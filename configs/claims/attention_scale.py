"""A claim: without 1/sqrt(d_k) the gradient of dot-product attention vanishes as d_k grows, that of additive attention
does not (Vaswani et al. 2017, section 3.2.1).

    ./launch.sh sweep configs/claims/attention_scale.py
    ./launch.sh table runs/claims/attention_scale

Measured, docs/claims.md: without the scale the softmax's Jacobian at the start falls to a quarter from d_k 4 to 256,
and after 300 steps 89 % of the answers are correct, of the scaled form all. 18 runs of 10 s each on 2 CPU cores.
"""

from ml_collections import ConfigDict


def get_config(arg: str = '') -> ConfigDict:
    return ConfigDict(
        dict(
            experiment='attention_retrieval',
            seed=0,
            data=dict(
                batch_size=64,  # rows per step
                test_batches=10,  # of the evaluator
                places=8,  # key-value pairs per row
                symbols=32,  # that the keys of a row are drawn from
            ),
            model=dict(
                form='scaled_dot_product',  # or 'dot_product', 'additive'
                d_k=64,  # width of queries and keys
            ),
            # Between the rates of the sweep.
            tx=dict(chain=('momentum',), momentum=dict(learning_rate=0.3, momentum=0.9)),
            run=dict(
                steps=300,
                log_every='5%',
                evals=dict(test=dict(every='50%')),
                checkpoint=dict(every='100%'),
                log=(),
            ),
            target=dict(metric='test/accuracy', at_least=0.9),
        )
    )


def sweep():
    for d_k in (4, 32, 256):
        for form in ('dot_product', 'scaled_dot_product', 'additive'):
            for rate in (0.1, 1.0):
                yield {'model.form': form, 'model.d_k': d_k, 'tx.momentum.learning_rate': rate}


def pictures(runs):
    from experiments.claims.attention import draw_attention_scale

    return {'attention scale': draw_attention_scale(runs)}
