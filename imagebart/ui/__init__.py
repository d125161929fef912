"""The page: layout, event handlers, examples. Knows pictures and events, but no tensors."""
