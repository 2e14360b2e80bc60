"""The program: parts put together, the API served."""
