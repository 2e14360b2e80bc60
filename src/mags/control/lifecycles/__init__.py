"""What carries wishes out: a job's way from pending to its end, and everything that happens without a request.

A request records a wish in one transaction; the first steps run at once, in a task of their own. Every step may be
repeated. What a crash leaves behind is found by its `step_ms` and taken up by the runner of any control.
"""
