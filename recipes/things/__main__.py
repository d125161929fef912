"""`python -m recipes.things train|assemble|evaluate|examples ...`: how the model of things is made and measured."""

import sys

from recipes.command import command_line
from recipes.things.evaluation import examples, measures
from recipes.things.training import TRAININGS

main = command_line("things", TRAININGS, measures, examples)

if __name__ == "__main__":
    sys.exit(main())
