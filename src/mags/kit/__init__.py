"""What every program needs and no word of the domain: clock, processes, children, logging, settings."""
