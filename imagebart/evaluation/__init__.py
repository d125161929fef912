"""How good a model of avatars is, read off its pictures: the reader, the metrics, the tables."""
