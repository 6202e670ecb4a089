/*-------------------------------------------------------------------------
 *
 * support.h
 *	  What the test programs share: errors, arguments, configuration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <getopt.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

extern const char *progname;

extern void die(const char *fmt,...)
			__attribute__((format(printf, 1, 2), noreturn));
extern void *xmalloc(size_t size);
extern void *xcalloc(size_t n, size_t size);
extern char *xstrdup(const char *s);
extern int64_t parse_int(const char *what, const char *s,
						 int64_t min, int64_t max);
extern double parse_double(const char *what, const char *s,
						   double min, double max);
extern int64_t now_us(void);
extern int64_t monotonic_us(void);

extern rd_kafka_conf_t *kafka_conf_new(const char *bootstrap);
extern void kafka_conf_set(rd_kafka_conf_t *conf, const char *name,
						   const char *value);
extern void kafka_conf_set_pair(rd_kafka_conf_t *conf, const char *pair);
extern rd_kafka_t *kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf);
extern void kafka_last_error_reset(void);
extern const char *kafka_last_error(void);

#endif							/* SUPPORT_H */
