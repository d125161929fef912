"""The sketchpad: where a picture is painted on, and where a run shows its pictures. See `sketchpad.py`."""
