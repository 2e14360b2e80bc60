/* alarm SECONDS: wait for the time of day that is so far from now. */

#include <errno.h>
#include <stdlib.h>
#include <time.h>

int main(int count, char **words)
{
    struct timespec until;
    if (count != 2 || clock_gettime(CLOCK_REALTIME, &until) != 0)
        return 2;
    until.tv_sec += atoi(words[1]);
    while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
    return 0;
}
