"""The SSH gateway: OpenSSH on the outside, sessions with a host on the inside. The guest needs no sshd.

    client --SSH--> Connection (who may what) --channel--> Shell or Forward --frames over NATS--> the VM

A VM is named by the user name on the common port, or has a port of its own. Keys are control's to judge.
"""
