"""An appearance embedding on sequences of moving digits: nothing to download.

    ./launch.sh run configs/tracking/embedding_digits.py

A narrow form of DeepSORT's network learns by the batch-hard triplet loss which crops show the same digit of the same
sequence, whatever hides or crosses it. It is measured on sequences of other digits: each crop queries those of all
sequences at least ten frames away. For other sequences: `--config.data.name=mot_challenge`,
`--config.data.source.path=MOT17`, crops of 128x64 and `--config.model.width=1`.

Not measured yet.
"""

from configs.tracking._learnt import embedding


def get_config(arg: str = ''):
    return embedding(steps=200, sequences=12, at_least=0.9) if arg == 'smoke' else embedding(1000, 48, 0.9)
