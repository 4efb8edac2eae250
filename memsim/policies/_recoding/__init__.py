"""The algorithms of policies that choose what is stored in place of words. On the host, compiled."""
