"""What may be typed, and the objects that it stands for."""
