"""Models as files: a folder of ours, and the published models of 2021."""
