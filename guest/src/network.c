#include "network.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "console.h"

static void put_address(struct sockaddr *to, const void *address) {
    struct sockaddr_in in = {.sin_family = AF_INET};
    memcpy(&in.sin_addr, address, 4);
    memcpy(to, &in, sizeof in);
}

static int bring_up(int fd, struct ifreq *request) {
    if (ioctl(fd, SIOCGIFFLAGS, request) < 0)
        return errno;
    request->ifr_flags |= IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, request) < 0 ? errno : 0;
}

static int set(int fd, const uint8_t address[4], uint8_t prefix, const uint8_t gateway[4]) {
    struct ifreq request = {.ifr_name = "eth0"};
    uint32_t mask = prefix ? htonl(~0u << (32 - prefix)) : 0;
    struct sockaddr_in now;
    // Setting an address, even the same, flushes the routes: only where it differs.
    bool same = ioctl(fd, SIOCGIFADDR, &request) == 0 &&
                (memcpy(&now, &request.ifr_addr, sizeof now), !memcmp(&now.sin_addr, address, 4));
    if (!same) {
        put_address(&request.ifr_addr, address);
        if (ioctl(fd, SIOCSIFADDR, &request) < 0)
            return errno;
    }
    put_address(&request.ifr_netmask, &mask);
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
        return errno;
    int error = bring_up(fd, &request);
    if (error)
        return error;
    static char device[] = "eth0";
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = device};
    static const uint8_t any[4];
    put_address(&route.rt_dst, any);
    put_address(&route.rt_genmask, any);
    put_address(&route.rt_gateway, gateway);
    return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? errno : 0;
}

int network_set(const uint8_t address[4], uint8_t prefix, const uint8_t gateway[4]) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int error = prefix <= 32 ? set(fd, address, prefix, gateway) : EINVAL;
    close(fd);
    return error;
}

void network_only_ipv4(void) {
    int fd = open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return; // a kernel without IPv6, or a machine without a card
    if (write(fd, "1", 1) < 0)
        say("mags-agent: IPv6 of eth0 stays on: %s", strerror(errno));
    close(fd);
}

int network_loopback(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    struct ifreq request = {.ifr_name = "lo"};
    int error = bring_up(fd, &request);
    close(fd);
    return error;
}
