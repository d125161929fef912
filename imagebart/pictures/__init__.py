"""People's own pictures: reading a folder or a Hub data set, looking at it, and keeping it ready to train on."""
