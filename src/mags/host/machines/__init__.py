"""The VMs of one host: each with a driver task, the pool they come from, and what they say to the outside.

fleet     all machines of the host; answers `start`, looks the others up
machine   one VM as others see it; scripts, execs, sessions, files are what runs in it
driver    the only one that changes the VM's state
wishes    which wishes a VM takes in which state
cells     what a VM occupies of the host, taken and given back as one
pool      cells that have run a command and wait, paused
record    what is on disk of a machine; adoption brings it back after a restart
output    a script's output to JetStream, every byte once
events    what control must hear, until it has
capacity  whether there is room; presence says so
requests  the verbs over NATS
"""
