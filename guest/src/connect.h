// A TCP connection inside the guest, spliced to stdin and stdout: how port forwarding and URLs come in.
#ifndef MAGS_CONNECT_H
#define MAGS_CONNECT_H

// Host "localhost" means wherever a server of this guest listens: 127.0.0.1, ::1, or eth0's address. While it is
// refused, tries again for `wait_ms`.
int connect_and_splice(const char *host, const char *port, long wait_ms);

#endif
