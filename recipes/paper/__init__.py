"""The paper's central claim in small: chains of stages complete images better than one left-to-right transformer."""
