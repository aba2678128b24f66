"""What the configs of classes of shapes share: the embedded bodies, what is held out of them, or a folder of meshes."""

from typing import Any

from ml_collections.config_dict import placeholder


def data(space: str, count: int, smoke: bool, held: int) -> dict[str, Any]:
    """`count` bodies to learn from, of which `held` others are measured."""
    return dict(
        path=placeholder(str),
        space=space,
        family=dict(kinds=('sphere', 'box', 'torus', 'capsule', 'cylinder'), count=count, rotated=False),
        batch_size=16 if smoke else 64,
        train=dict(split='train'),
        evals=dict(
            test=dict(
                split='test',
                count=held,
                batch_size=5 if smoke else 1,
                points=20_000 if smoke else 100_000,
                resolution=32 if smoke else 128,
            )
        ),
    )
