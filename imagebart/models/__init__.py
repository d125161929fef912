"""The networks: first stage, transformers, denoiser, the published stages, and the model that they make up."""
