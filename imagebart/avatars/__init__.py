"""Avatars drawn from known attributes: the endless, exactly described pictures that the shipped model learns from."""
