"""Avatars drawn from known attributes: endless, exactly described pictures for the shipped model."""
