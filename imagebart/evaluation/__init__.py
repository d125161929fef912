"""How good a model is: metrics with intervals, a model of a folder of images, the measures of the paper."""
