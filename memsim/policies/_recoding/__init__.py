"""The algorithms of policies that choose what is stored in place of words."""
