"""Drawing tokens from trained networks: the reverse chain, its passes, and what makes them fast."""
