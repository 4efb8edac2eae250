"""Files: checkpoints in, held weights out; plans, chips and fault maps both ways."""
