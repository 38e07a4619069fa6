/* clock SECONDS: sets the time of day of the machine that it runs in, in 64 bits on every host, which busybox's date may not have. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int count, char **arguments)
{
    if (count != 2)
        return 2;
    struct timespec time = { .tv_sec = strtoll(arguments[1], NULL, 10) };
    if (clock_settime(CLOCK_REALTIME, &time) != 0) {
        perror("clock");
        return 1;
    }
    return 0;
}
