"""Pure values that the programs share: ids, states, errors, messages, frames. No I/O happens here."""
