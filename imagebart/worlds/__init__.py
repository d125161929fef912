"""What the shipped model knows of avatars: their attributes, a network that reads these, a scorer of images."""
