"""From a prompt or a class to the conditioning tokens that a model sees before its image tokens."""
