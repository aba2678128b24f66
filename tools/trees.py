"""Shapes of the parameters of two networks, for the sides of benchmarks/optimizers.py. Imports nothing."""


def mobilenet_v2():
    """Sandler et al. 2018, table 2: 158 leaves, 3.5 million parameters."""
    shapes = [(3, 3, 3, 32)]
    inputs = 32
    for expand, outputs, repeats in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(repeats):
            width = inputs * expand
            shapes += [(1, 1, inputs, width)] if expand > 1 else []
            shapes += [(3, 3, 1, width), (1, 1, width, outputs)]
            inputs = outputs
    shapes += [(1, 1, 320, 1280)]
    return [s for shape in shapes for s in (shape, shape[-1:], shape[-1:])] + [(1280, 1000), (1000,)]


def resnet50():
    """He et al. 2015, table 1: 161 leaves, 25.6 million parameters."""
    shapes = [(7, 7, 3, 64)]
    inputs = 64
    for width, repeats in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(repeats):
            shapes += [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            shapes += [(1, 1, inputs, 4 * width)] if block == 0 else []
            inputs = 4 * width
    return [s for shape in shapes for s in (shape, shape[-1:], shape[-1:])] + [(2048, 1000), (1000,)]


TREES = {'mobilenet_v2': mobilenet_v2, 'resnet50': resnet50}
