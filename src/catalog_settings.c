/*-------------------------------------------------------------------------
 *
 * catalog_settings.c
 *	  Settings under which texts are read and expressions computed.
 *
 * A setting belongs to one of these:
 *
 *	captured	It changes how a text is read or what a value is.  create_*
 *				keeps what its caller's session had, and expressions see that
 *				whenever they run, in whichever session: after ALTER DATABASE
 *				SET, say, and a restart of the worker.
 *	fixed		It must have one value in a worker (worker_main.c,
 *				worker_stream.c), or would change what weir promises.
 *	no matter	It changes plans, messages, what is logged or how resources
 *				are used, and no value.
 *
 * Settings of modules and of users (with a dot in their names) are captured
 * if the session has them and any user may set them: a function may read
 * them.  Those of plpgsql that change what a function does are captured
 * always.
 *
 * Texts that weir keeps or makes are written and read under settings of
 * weir's own, the same for all: see catalog_enter_neutral().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "catalog_spi.h"
#include "compat.h"

static const char *const captured_names[] = {
	"search_path",
	"TimeZone",
	"DateStyle",
	"IntervalStyle",
	"array_nulls",
	"backslash_quote",
	"bytea_output",
	"default_text_search_config",
	"extra_float_digits",
	"lc_monetary",
	"lc_numeric",
	"lc_time",
	"quote_all_identifiers",
	"standard_conforming_strings",
	"timezone_abbreviations",
	"transform_null_equals",
	"xmlbinary",
	"xmloption"
};

/* Of a module that is loaded when it is needed, with its own defaults. */
static const char *const captured_of_plpgsql[][2] = {
	{"plpgsql.check_asserts", "on"},
	{"plpgsql.extra_errors", "none"},
	{"plpgsql.variable_conflict", "error"}
};

/*
 * The session's own statements, weir's, are under neutral settings; these are
 * no concern of theirs, and take long to set (files, locales and catalogs are
 * read).
 */
static const char *const neutral_settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"quote_all_identifiers", "off"},
	{"array_nulls", "on"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"xmloption", "content"}
};

static bool
is_neutral(const char *name)
{
	for (int i = 0; i < lengthof(neutral_settings); i++)
		if (strcmp(neutral_settings[i][0], name) == 0)
			return true;
	return false;
}

static void
add_setting(CapturedSettings *settings, const char *name, const char *value)
{
	CapturedSetting *setting = palloc(sizeof(CapturedSetting));

	setting->name = pstrdup(name);
	setting->value = pstrdup(value);
	settings->list = lappend(settings->list, setting);
}

static bool
is_captured(const CapturedSettings *settings, const char *name)
{
	ListCell   *lc;

	foreach(lc, settings->list)
	{
		if (pg_strcasecmp(((CapturedSetting *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
}

static bool
is_of_plpgsql(const char *name)
{
	for (int i = 0; i < lengthof(captured_of_plpgsql); i++)
		if (strcmp(captured_of_plpgsql[i][0], name) == 0)
			return true;
	return false;
}

/*
 * The session's value of a setting of plpgsql, or its default.  Before the
 * module is loaded anybody can give the name any value, which it then does
 * not take from who may not.
 */
static const char *
value_of_plpgsql(struct config_generic **all, int n, int i)
{
	const char *name = captured_of_plpgsql[i][0];
	const char *value = GetConfigOption(name, true, false);

	for (int j = 0; value != NULL && j < n; j++)
		if (strcmp(all[j]->name, name) == 0 &&
			(all[j]->flags & GUC_CUSTOM_PLACEHOLDER) != 0 &&
			all[j]->scontext == PGC_USERSET)
			value = NULL;
	return value != NULL ? value : captured_of_plpgsql[i][1];
}

void
catalog_capture_settings(CapturedSettings *settings)
{
	struct config_generic **all;
	int			n;

	settings->list = NIL;
	for (int i = 0; i < lengthof(captured_names); i++)
		add_setting(settings, captured_names[i],
					GetConfigOption(captured_names[i], false, false));
	all = compat_guc_variables(&n);
	for (int i = 0; i < lengthof(captured_of_plpgsql); i++)
		add_setting(settings, captured_of_plpgsql[i][0],
					value_of_plpgsql(all, n, i));
	for (int i = 0; i < n; i++)
	{
		const char *value;

		if (all[i]->context != PGC_USERSET ||
			strchr(all[i]->name, '.') == NULL ||
			pg_strncasecmp(all[i]->name, "weir.", 5) == 0 ||
			is_captured(settings, all[i]->name))
			continue;
		value = GetConfigOption(all[i]->name, true, false);
		if (value != NULL)
			add_setting(settings, all[i]->name, value);
	}
}

Datum
catalog_settings_datum(const CapturedSettings *settings)
{
	List	   *texts = NIL;
	ListCell   *lc;

	foreach(lc, settings->list)
	{
		CapturedSetting *setting = lfirst(lc);

		texts = lappend(texts, psprintf("%s=%s", setting->name,
										setting->value));
	}
	return catalog_text_array(texts);
}

/* As catalog_settings_datum() has made it, into the current context. */
void
catalog_settings_read(CapturedSettings *settings, Datum datum)
{
	Datum	   *elements;
	int			n;

	settings->list = NIL;
	deconstruct_array(DatumGetArrayTypeP(datum), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(elements[i]);
		char	   *value = strchr(name, '=');

		if (value == NULL)
			elog(ERROR, "setting \"%s\" has no value", name);
		*value++ = '\0';
		add_setting(settings, name, value);
	}
}

static void
set(const char *name, const char *value, GucAction action)
{
	const char *now = GetConfigOption(name, true, false);

	if (now != NULL && strcmp(now, value) == 0)
		return;

	/*
	 * As the user who could set it; those of plpgsql were captured from a
	 * session that might have set them.  A value that is not possible any
	 * more says nothing of a row.
	 */
	if (set_config_option(name, value,
						  is_of_plpgsql(name) ? PGC_SUSET : PGC_USERSET,
						  PGC_S_SESSION, action, true, DEBUG1, false) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("setting \"%s\" can no longer have the value \"%s\"",
						name, value),
				 errdetail("That is the value it had when the source or stream was made."),
				 errhint("Make it possible again: a locale, a text search configuration or a file may be missing.")));
}

void
catalog_settle_session(const CapturedSettings *settings)
{
	ListCell   *lc;

	foreach(lc, settings->list)
	{
		CapturedSetting *setting = lfirst(lc);

		if (!is_neutral(setting->name))
			set(setting->name, setting->value, GUC_ACTION_SET);
	}
}

void
catalog_neutral_session(void)
{
	for (int i = 0; i < lengthof(neutral_settings); i++)
		SetConfigOption(neutral_settings[i][0], neutral_settings[i][1],
						PGC_SUSET, PGC_S_SESSION);
}

void
catalog_enter_user(UserContext *save, Oid userid,
				   const CapturedSettings *settings)
{
	ListCell   *lc;

	GetUserIdAndSecContext(&save->save_userid, &save->save_sec_context);
	SetUserIdAndSecContext(userid, save->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	save->guc_level = NewGUCNestLevel();
	foreach(lc, settings->list)
	{
		CapturedSetting *setting = lfirst(lc);

		set(setting->name, setting->value, GUC_ACTION_SAVE);
	}
}

void
catalog_leave_user(const UserContext *save)
{
	/* Not as at a commit: a plain SET in the user's code would stay. */
	AtEOXact_GUC(false, save->guc_level);
	SetUserIdAndSecContext(save->save_userid, save->save_sec_context);
}

int
catalog_enter_neutral(void)
{
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(neutral_settings); i++)
		set(neutral_settings[i][0], neutral_settings[i][1], GUC_ACTION_SAVE);
	return nest_level;
}

void
catalog_leave_neutral(int nest_level)
{
	AtEOXact_GUC(false, nest_level);
}
