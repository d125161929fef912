"""How long drawing takes on this machine, each row against the naive way in the same run."""
