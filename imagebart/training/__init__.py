"""Training of first stages and stages, on avatars or on a folder of images."""
