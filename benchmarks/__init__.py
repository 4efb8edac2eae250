"""One script per claim about speed or memory; each prints a ratio or a bound."""
