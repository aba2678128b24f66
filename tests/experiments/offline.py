"""Experiments of configs without their data, for tests that trace a step and run none."""

import importlib

from canon.train import Experiment


def make_offline(config, data_dir):
    """Returns (experiment, config); of stages those of the first that trains, on zeros if it reads earlier ones.

    data_dir: in place of the folder of prepared data.
    """
    if 'data' in config and 'data_dir' in config.data:
        config.data.data_dir = str(data_dir)
    module = importlib.import_module(f'experiments.{config.experiment}')
    made = module.make(module.offline(config))
    if isinstance(made, Experiment):
        return made, config
    return next(stage for stage in made if stage.make is not None).make(None)
