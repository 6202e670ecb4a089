/*-------------------------------------------------------------------------
 *
 * ingest_decode_path.c
 *	  Column options of a source: where in a document a column's value
 *	  stands (path), and the unit of its epochs (epoch).
 *
 * A path is $ and any number of steps: .name, ."any name", ['any name'],
 * ["any name"], [n] from 0.  A bare name ends before a point, bracket, quote
 * or white space.  In a quoted name a backslash takes the next character as
 * it is.  Case counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "ingest_decode_path.h"

/* The reader recurses along a path; nobody writes one this long. */
#define MAX_PATH_STEPS 64

static void
bad_path(const char *path, const char *at)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid path \"%s\" at character %d", path,
					(int) (at - path) + 1),
			 errhint("A path is $ and steps like .name, .\"any name\", ['any name'] or [0].")));
}

/* A quoted name that opens at p; returns what follows it. */
static const char *
parse_quoted(const char *path, const char *p, DocStep *step)
{
	char		quote = *p++;
	char	   *name = palloc(strlen(p) + 1);
	char	   *end = name;

	while (*p != quote)
	{
		if (*p == '\\')
			p++;
		if (*p == '\0')
			bad_path(path, p);
		*end++ = *p++;
	}
	step->name = name;
	step->name_len = end - name;
	return p + 1;
}

static const char *
parse_step(const char *path, const char *p, DocStep *step)
{
	memset(step, 0, sizeof(*step));
	if (*p == '.' && p[1] == '"')
		return parse_quoted(path, p + 1, step);
	if (*p == '.')
	{
		size_t		len = strcspn(++p, ".[]\"' \t\r\n");

		if (len == 0)
			bad_path(path, p);
		step->name = pnstrdup(p, len);
		step->name_len = len;
		return p + len;
	}
	if (*p != '[')
		bad_path(path, p);
	p++;
	if (*p == '\'' || *p == '"')
		p = parse_quoted(path, p, step);
	else
	{
		char	   *end;
		unsigned long index;

		if (*p < '0' || *p > '9')
			bad_path(path, p);
		errno = 0;
		index = strtoul(p, &end, 10);
		if (errno != 0 || index > PG_INT32_MAX)
			bad_path(path, p);
		step->index = (uint32) index;
		p = end;
	}
	if (*p != ']')
		bad_path(path, p);
	return p + 1;
}

DocStep *
column_path_parse(const char *path, int *nsteps)
{
	DocStep    *steps = palloc(MAX_PATH_STEPS * sizeof(DocStep));
	const char *p = path;

	*nsteps = 0;
	if (*p++ != '$')
		bad_path(path, path);
	while (*p != '\0')
	{
		if (*nsteps == MAX_PATH_STEPS)
			bad_path(path, p);
		p = parse_step(path, p, &steps[(*nsteps)++]);
	}
	return steps;
}

char *
column_path_of_name(const char *name)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "$.\"");
	for (const char *p = name; *p; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfoChar(&path, '\\');
		appendStringInfoChar(&path, *p);
	}
	appendStringInfoChar(&path, '"');
	return path.data;
}

EpochUnit
column_epoch_parse(const char *unit)
{
	if (strcmp(unit, "d") == 0)
		return EPOCH_DAYS;
	if (strcmp(unit, "s") == 0)
		return EPOCH_SECONDS;
	if (strcmp(unit, "ms") == 0)
		return EPOCH_MILLISECONDS;
	if (strcmp(unit, "us") == 0)
		return EPOCH_MICROSECONDS;
	if (strcmp(unit, "ns") == 0)
		return EPOCH_NANOSECONDS;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid epoch unit \"%s\"", unit),
			 errhint("Units are d, s, ms, us and ns.")));
}

DocStep *
column_path(Oid relid, AttrNumber attnum, const char *name, int *nsteps,
			EpochUnit *epoch)
{
	DocStep    *steps = NULL;
	ListCell   *lc;

	*epoch = EPOCH_BY_MAGNITUDE;
	foreach(lc, GetForeignColumnOptions(relid, attnum))
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "path") == 0)
			steps = column_path_parse(defGetString(option), nsteps);
		else if (strcmp(option->defname, "epoch") == 0)
			*epoch = column_epoch_parse(defGetString(option));
	}
	if (steps == NULL)
	{
		steps = palloc0(sizeof(DocStep));
		steps->name = pstrdup(name);
		steps->name_len = strlen(name);
		*nsteps = 1;
	}
	return steps;
}
