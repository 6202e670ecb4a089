/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  Preloaded into a server: its time of day is set while it runs.
 *
 * The file that CLOCK_SHIFT names has so many seconds, an int64, to add to
 * gettimeofday(), from which PostgreSQL has its timestamps.  Clocks that
 * nobody can set, such as CLOCK_MONOTONIC, go on as they do.
 *
 *-------------------------------------------------------------------------
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

typedef int (*GetTimeOfDay) (struct timeval *, void *);

static const volatile int64_t *
map_shift(void)
{
	const char *name = getenv("CLOCK_SHIFT");
	int			fd = name ? open(name, O_RDONLY) : -1;
	void	   *map;

	if (fd < 0)
		return NULL;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	static GetTimeOfDay original;
	static const volatile int64_t *shift;
	int			result;

	if (original == NULL)
	{
		original = (GetTimeOfDay) dlsym(RTLD_NEXT, "gettimeofday");
		shift = map_shift();
	}
	result = original(tv, tz);
	if (shift)
		tv->tv_sec += *shift;
	return result;
}
