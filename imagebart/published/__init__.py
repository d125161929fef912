"""The seven models that the authors published: what they are, downloaded, read safely and converted."""
