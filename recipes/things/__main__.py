"""`python -m recipes.things train|assemble|evaluate|examples ...`: how the model of things is made and measured."""

import sys
from functools import partial

from imagebart.training.config import DenoiserRun
from imagebart.training.denoiser import train_denoiser
from recipes.command import command_line
from recipes.things.denoiser import task_data
from recipes.things.detector import train_detector
from recipes.things.evaluation import measures
from recipes.things.examples import examples
from recipes.things.first_stage import LayersRun, train_first_stage
from recipes.training import CaptionsRun, Trainings

TRAININGS: Trainings = {
    "first-stage": (LayersRun, train_first_stage),
    "denoiser": (DenoiserRun, partial(train_denoiser, data=task_data)),
    "detector": (CaptionsRun, train_detector),  # it measures, and ships as the scorer
}
main = command_line("things", TRAININGS, measures, examples)

if __name__ == "__main__":
    sys.exit(main())
