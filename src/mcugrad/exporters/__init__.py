"""Learned weights back out: from the folder of a training run to the formats that other tools read."""
