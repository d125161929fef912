"""The sketchpad: where an image is painted on, and where a run shows its images. See `component.py`."""
