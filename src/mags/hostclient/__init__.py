"""How control and edge speak to hosts over NATS: requests, sessions, presence."""
