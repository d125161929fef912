"""The page: its layout, its actions and its server. It knows images and events of a pipeline, but no tensors."""
