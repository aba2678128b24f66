"""Shared parts of the recipes of handwritten lines: network, buckets of width, augmentation and schedule."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from canon.data.text.alphabets import find_characters

# Lines in the manner of handwriting, black on white: slanted, with letters that leave the line and uneven spaces.
WRITING = dict(
    chain=('render_text', 'project_layers', 'merge_layers', 'add_noise'),
    render_text=dict(underline=0.0, tracking=(-0.03, 0.1), curve=0.3, bend=0.02, jitter=0.05, word_space=(0.8, 1.5)),
    project_layers=dict(yaw=0.0, pitch=0.0, roll=1.0, shear=0.4),  # the shear is the slant
    add_noise=dict(p=0.4, elastic=1.0, jpeg=(50, 95)),
)


def make_config(
    name: str, source: dict[str, Any], characters: str, max_length: int, words: tuple[str, ...], smoke: bool
) -> ConfigDict:
    """Returns the config of a data set of lines.

    Args:
      name: of the data set, with splits 'train', 'valid' and 'test'.
      source: its further arguments.
      characters: of classes 1, 2, ...; a space among them.
      max_length: characters of the longest line.
      words: of the lines that the smoke form draws itself.
      smoke: one to three words, 20 characters at most, on lines 24 pixels high, with a small network.
    """
    # Each line goes to the narrowest size that it fits into, and is padded at the right with its last column.
    widths = (128, 256) if smoke else (512, 1024, 1536, 2048, 2560, 3328)
    fit = dict(chain=('fit_line',), fit_line=dict(size='batch'))
    if smoke:
        name = 'rendered_words'
        source = dict(
            words=words,
            words_per_line=(1, 3),
            cases=('as written',),
            num_examples=3072,  # lines of each split
            height=24,
            stages=WRITING,
            grey=True,
        )
    valid, test = ('valid[:256]', 'test[:512]') if smoke else ('valid', 'test')
    return ConfigDict(
        dict(
            experiment='text_recognition',
            seed=0,
            data=dict(
                name=name,
                source=source,
                reading=dict(
                    threads=2 if smoke else 4,  # that prepare batches ahead
                    workers=0,  # processes that do it instead
                    memory_limit=1 << 30 if smoke else 0,  # bytes up to which images are kept before the transforms
                ),
                sizes=tuple((24 if smoke else 128, width) for width in widths),
                batch_size=32 if smoke else 16,
                train=dict(
                    split='train',
                    sampler='shuffled',
                    transforms=fit
                    if smoke
                    else dict(
                        chain=('random_slant', 'fit_line'),
                        random_slant=dict(shear=0.3, p=0.5, fill=255),  # white paper
                        fit_line=dict(size='batch'),
                    ),
                ),
                evals=dict(
                    valid=dict(split=valid, transforms=fit, beam=0),  # selects the checkpoint
                    test=dict(split=test, transforms=fit, beam=0),  # 0 decodes the best path, N by a beam of N prefixes
                ),
            ),
            text=dict(characters=characters, max_length=20 if smoke else max_length, ignore_case=False),
            augment=dict(
                # Points of the upper and lower border move, and the line follows; 'learnt' where an agent finds that
                # lines become harder to read (docs/text_recognition.md).
                mode='none' if smoke else 'random',
                patches=16,  # between the points: of 32 to 208 pixels
                radius=12.0,  # pixels that a point moves at most along each axis
                spacing=8,  # pixels between places at which the warp is evaluated
                probability=0.5,  # of warping a line
            ),
            input=dict(mean=1.0, std=0.5),  # of grey pixels in [0, 1]: white is 0, as what convolutions pad with
            model=dict(
                name='laia.laia',
                num_classes=len(find_characters(characters)),
                dtype=placeholder(str),  # of the convolutions, such as 'bfloat16'
                **_network(smoke),
            ),
            tx=muon() if smoke else _rmsprop(),
            run=dict(
                steps='900 steps' if smoke else '200 epochs',
                log_every='50 steps' if smoke else '100 steps',
                evals=dict(
                    valid=dict(every='300 steps' if smoke else '1 epoch'),
                    test=dict(every='100%' if smoke else '10 epochs'),
                ),
                checkpoint=dict(
                    every='300 steps' if smoke else '1 epoch', best='valid/character_error_rate', mode='min'
                ),
                # Ends after 20 epochs without an improvement, as in the paper.
                **(
                    {} if smoke else dict(early_stop=dict(metric='valid/character_error_rate', patience=20, mode='min'))
                ),
            ),
            target=dict(metric='test/character_error_rate', at_most=0.03 if smoke else 0.08, ci=False),
        )
    )


def _network(smoke: bool) -> dict[str, Any]:
    """Returns the arguments of Laia: the paper's, or a small one with frames of 4 columns."""
    if not smoke:
        return dict(conv_dropout=0.2, dropout=0.5)
    small = dict(features=(16, 24, 32, 48), pools=((2, 2), (2, 2), (2, 1)), hidden=64, layers=2)
    return dict(**small, conv_dropout=0.0, dropout=0.1)


def _rmsprop() -> dict[str, Any]:
    # The paper's, with torch's decay; the gradient is clipped, which the paper does not state.
    return dict(
        chain=('clip', 'rmsprop'),
        clip=dict(name='clip_by_global_norm', max_norm=10.0),
        rmsprop=dict(learning_rate=3e-4, decay=0.99, eps=1e-8),
    )


def muon() -> dict[str, Any]:
    """Returns Muon with a cosine schedule: with Adam, small networks from scratch stayed on plateaus that it leaves."""

    def warm_up(rate):
        return dict(name='warmup', steps='5%', then=dict(name='cosine', init=rate, final=0.0, steps='95%'))

    return dict(
        chain=('clip', 'muon'),
        clip=dict(name='clip_by_global_norm', max_norm=5.0),
        muon=dict(learning_rate=warm_up(0.02), adam_learning_rate=warm_up(3e-3)),
    )
