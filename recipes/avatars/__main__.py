"""`python -m recipes.avatars train|assemble|evaluate|examples ...`: how the model of avatars is made and measured."""

import sys

from recipes.avatars.evaluation import examples, measures
from recipes.avatars.training import TRAININGS
from recipes.command import command_line

main = command_line("avatars", TRAININGS, measures, examples)

if __name__ == "__main__":
    sys.exit(main())
