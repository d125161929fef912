"""The recipe of the model of things: everyday things on plain grounds, drawn without end from Fluent emoji."""
