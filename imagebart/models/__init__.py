"""The networks: first stage, transformers, denoiser, the published stages, and the model that they make up.

They know nothing of drawing: how tokens are drawn from them, fast or slow, is `imagebart.sampling`'s.
"""
