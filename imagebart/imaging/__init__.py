"""Images and masks: files of every kind, the square that the model sees, and the way back."""
