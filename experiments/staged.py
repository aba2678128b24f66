"""Systems trained in stages: one experiment after the other, each from what the earlier ones have learnt.

    config.experiment = 'staged'
    config.stages = dict(
        experiment='classification',  # what each stage is
        chain=('shallow', 'deep'),
        shallow=dict(model=dict(name='vgg.vgg11')),
        deep=dict(run=dict(init_from=dict(stage='shallow', new='^conv5_'))),
    )

The config of a stage is the config itself with the stage's keys laid over it; a stage may state another `experiment`.
What the config itself states about steps, evaluators and target is for the last one.

`run.init_from.stage` names the stage whose weights a stage begins from, the one before it if it names none. A stage
whose experiment has `compute(config, stages, artefacts)` in place of `make` computes instead of training: see
`canon.train.Stage`. An experiment that reads the artefacts of earlier stages has `make_stage(config, stages)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon.configuration import apply_form, make_stage_config, order_stages
from canon.train import Experiment, Stage


def make(config: ConfigDict) -> list[Stage]:
    """Makes the stages of config.stages in the order of its `chain`; all other keys are theirs.

    A form of `config.forms` may have stages of its own, and is applied before them.
    """
    config = apply_form(config)
    return [_stage(config, name) for name in order_stages(config)]


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config as the stages' experiment has it offline."""
    return _module(apply_form(config).stages.experiment).offline(config)


def _stage(config: ConfigDict, name: str) -> Stage:
    # Only the module is looked at here: what a stage needs may not exist before the earlier ones are finished.
    if hasattr(_module(make_stage_config(config, name).experiment), 'compute'):
        return Stage(name, run=partial(_compute, config, name))
    return Stage(name, make=partial(_make, config, name))


def _make(config: ConfigDict, name: str, stages: Mapping[str, Path]) -> tuple[Experiment, ConfigDict]:
    stage = make_stage_config(config, name)
    module = _module(stage.experiment)
    # Most experiments know nothing of stages: weights of earlier ones come by run.init_from.
    made = module.make_stage(stage, stages) if hasattr(module, 'make_stage') else module.make(stage)
    return made, stage


def _compute(config: ConfigDict, name: str, stages: Mapping[str, Path], artefacts: Any) -> Mapping[str, float] | None:
    stage = make_stage_config(config, name)
    return _module(stage.experiment).compute(stage, stages, artefacts)


def _module(experiment: str) -> Any:
    return importlib.import_module(f'experiments.{experiment}')
