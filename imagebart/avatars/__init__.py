"""Avatars drawn from known attributes: endless, exactly described images for the shipped model."""
