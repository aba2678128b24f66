"""Fine-tunes published weights on a folder of images, one subfolder per class: torchvision's ResNet-50 with a new head.

    ./launch.sh run configs/classification/fine_tune.py --config.data.source.path=PHOTOS --config.model.num_classes=5

The weights are downloaded from the hub on first use, or read from a file:
`--config.run.init_from.path=resnet50.safetensors`. The stem and the first two stages are frozen, the last two learn at
a tenth of the head's learning rate. `:imagenette` takes Imagenette through TFDS. Not run here: neither photographs nor
weights are available.
`:smoke` does the same without a download, in two stages: a CIFAR ResNet-20 learns the digits in 180 steps, then all but
its last stage is frozen and a new head learns them again: 97.8 % of the held-out ones after 60 steps.
"""

from ml_collections import ConfigDict

from canon.named import to_plain
from configs.classification._recipes import IMAGENET, data_set, momentum, one_crop, recipe, smoke

ARGUMENTS = ('smoke', 'imagenette')


def get_config(arg: str = ''):
    tx = momentum(dict(name='cosine', init=0.01, final=0.0, steps='100%'), 1e-4)
    # Parameters are named conv1/.., bn1/.., conv2_1/.., ..., fc/..
    links = dict(
        scale_rates=dict(rules=(('^fc/', 1.0), ('.*', 0.1))),  # factors of the learning rate, the first that matches
        freeze=dict(where=r'^(conv1|bn1|conv2_\d+|conv3_\d+)/'),  # parameters that do not change
    )
    config = recipe(
        name=data_set(arg, own='folder'),
        batch_size=32,
        train=dict(
            chain=('decode_random_resized_crop', 'random_flip'),
            decode_random_resized_crop=dict(size=224, scale=(0.25, 1.0)),  # crops of at least a quarter of the area
        ),
        evals=dict(validation=one_crop(224, 256)),
        input=IMAGENET,
        # Few images would spoil ImageNet's statistics.
        model=dict(name='resnet.resnet50', frozen_norm=True),
        tx=dict(tx, chain=(*tx['chain'], *links), **links),
        run=dict(
            steps='10 epochs',
            log_every=50,
            eval_every='1 epoch',
            init_from=dict(
                path='timm/resnet50.tv_in1k',  # a repository of the hub, a file, or a run's folder
                new='^fc/',  # regex of the parameters that keep their initialisation: the head
            ),
        ),
        target=dict(metric='validation/accuracy', at_least=0.9),
    )
    return _without_download(config) if arg == 'smoke' else config


def _without_download(config: ConfigDict) -> ConfigDict:
    """Returns the recipe after a stage that trains the weights it starts from."""
    model = dict(name='resnet.resnet20_cifar')
    small = smoke(config, size=32, batch_size=32, steps=60, model=model, at_least=0.9)
    small.experiment, tuned = 'staged', to_plain(small.tx)
    small.tx = momentum(0.05, 1e-4)
    small.stages = dict(
        experiment='classification',
        chain=('weights', 'tuned'),
        weights=dict(model=dict(frozen_norm=False), run=dict(steps=180)),
        tuned=dict(tx=tuned, run=dict(init_from=dict(new='^fc/'))),
    )
    return small
