"""Models as files: folders of safetensors, and the Hub."""
