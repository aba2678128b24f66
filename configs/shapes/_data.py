"""Data of the configs that learn classes of shapes: synthetic bodies, some of them held out, or a folder of meshes."""

from typing import Any

from ml_collections.config_dict import placeholder


def data(space: str, count: int, smoke: bool, held_out: int) -> dict[str, Any]:
    """Returns config.data: `count` bodies to learn from, and `held_out` others to evaluate on."""
    return dict(
        path=placeholder(str),  # a folder of watertight meshes; None takes the synthetic bodies
        space=space,  # the space in which shapes are learned: 'cube' of side 1, or the unit 'sphere'
        family=dict(
            kinds=('sphere', 'box', 'torus', 'capsule', 'cylinder'),  # of the synthetic bodies, in turn
            count=count,  # number of them
            rotated=False,  # random orientations; otherwise their axes are x, y or z
        ),
        batch_size=16 if smoke else 64,  # shapes per step
        train=dict(split='train'),  # of the folder, or of the synthetic bodies
        evals=dict(
            test=dict(
                split='test',
                count=held_out,  # shapes that are evaluated; None takes all of the split
                batch_size=5 if smoke else 1,  # shapes evaluated at a time
                points=20_000 if smoke else 100_000,  # for the IoU
                resolution=32 if smoke else 128,  # cells per side of the grid on which the surface is extracted
            )
        ),
    )
