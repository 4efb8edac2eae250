"""The algorithm of `matched`: words to words by minimum cost flow, outputs on a tour."""
