// eth0 and its IPv4 route.
#ifndef MAGS_NETWORK_H
#define MAGS_NETWORK_H

#include <stdint.h>

// Addresses as they are on the wire. 0 or errno. Applying it again changes nothing.
int network_set(const uint8_t address[4], uint8_t prefix, const uint8_t gateway[4]);
int network_loopback(void);
// No IPv6 on eth0: nothing answers there, and looking for routers and neighbours costs every clone time.
void network_only_ipv4(void);

#endif
