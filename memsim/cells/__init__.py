"""Memristors: how they are pulsed, what they conduct, what wires and converters make of that."""
