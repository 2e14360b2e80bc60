// The link to the host: sessions, frames in and out.
#ifndef MAGS_LINK_H
#define MAGS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void link_open(int fd);      // a virtio port, or a connected socket
void link_listen(int fd);    // a listening socket: one host after the other
void link_pump(void);        // send what there is to send, as far as the link takes it
void link_resume(void);      // read on after a pause
uint32_t link_session(void); // changes with every RESET; 0: no host
bool link_ended(void);       // the peer of link_open() has gone for good (sockets only)

// Queue a frame that answers the host; ahead of all output.
void link_send(uint8_t type, uint32_t id, const void *payload, size_t size);
void link_error(uint32_t id, int error, const char *message);
// The host broke the protocol: say so and wait for a RESET.
void link_goodbye(const char *reason);

#endif
